"""Divides a limit among several processes. Pure."""

from __future__ import annotations


def share(limit: int, processes: int) -> int:
    """The part of ``limit`` for each of ``processes``, rounded up so that none gets zero."""
    return -(-limit // processes)
