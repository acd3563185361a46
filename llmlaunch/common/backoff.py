"""How long to wait before the next try: exponential backoff, and the jitter that keeps many from trying at once. Pure."""

from __future__ import annotations

_DOUBLINGS = 30
"""More doublings would overflow, and exceed any sensible limit."""


def delay(failures: int, first_s: float, most_s: float) -> float:
    """Seconds to wait after the ``failures``-th failure in a row: ``first_s``, doubled each further time, up to ``most_s``."""
    return min(first_s * 2.0 ** min(max(failures, 1) - 1, _DOUBLINGS), most_s)


def equal_jitter(delay_s: float, draw: float) -> float:
    """Between half of ``delay_s`` and all of it; ``draw`` is uniform in [0, 1).

    Clients that lost the same server do not all come back at once (M. Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015: "equal jitter").
    """
    return delay_s * (0.5 + draw / 2)
