"""Which of several replicas gets the next request. Pure: chance comes in as an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHORTEST_QUEUE = "shortest_queue"
LOTTERY = "lottery"
METHODS = (SHORTEST_QUEUE, LOTTERY)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that may be chosen."""

    key: str
    """Its worker_name."""
    speed: float
    """Relative, above 0: a replica of speed 2 gets twice the work of one of speed 1."""
    queue: int
    """Requests it works on or holds, now."""


def choose(dispatch: str, candidates: Sequence[Candidate], draw: float) -> Candidate:
    """Return one of ``candidates``.

    ``shortest_queue`` takes the fewest requests per speed and settles ties by ``draw``; ``lottery`` draws at random,
    weighted by speed. ``draw`` is uniform in [0, 1). The two rules are those of FastChat's controller, except that
    its shortest queue always gave ties to the worker that registered first.

    Raises ValueError for an unknown method and when there is no candidate.
    """
    if not candidates:
        raise ValueError("no candidates to choose from")
    if dispatch == SHORTEST_QUEUE:
        least = min(c.queue / c.speed for c in candidates)
        best = [c for c in candidates if c.queue / c.speed == least]
        return best[int(draw * len(best))]
    if dispatch == LOTTERY:
        mark = draw * sum(c.speed for c in candidates)
        for candidate in candidates:
            mark -= candidate.speed
            if mark < 0:
                return candidate
        return candidates[-1]  # rounding left a crumb
    raise ValueError(f"unknown dispatch method {dispatch!r}; known: {', '.join(METHODS)}")
