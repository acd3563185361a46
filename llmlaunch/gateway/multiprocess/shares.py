"""What one of several processes gets of a limit that holds for all of them together. Pure."""

from __future__ import annotations


def share(limit: int, processes: int) -> int:
    """Each of ``processes``' share of ``limit``, rounded up: nobody may end up with nothing."""
    return -(-limit // processes)
