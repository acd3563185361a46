"""Which of several replicas gets the next request. Pure: chance, turn and prefix come in as arguments.

``shortest_queue`` takes the fewest requests per speed and breaks ties at random; ``lottery`` draws at random, weighted
by speed. These two are the rules of FastChat's controller, except that its shortest queue always gave ties to the
worker that registered first. ``round_robin`` takes turns, weighted by speed, too.

``prefix`` sends requests with the same beginning to the same replica, so that its KV cache is reused: rendezvous hashing weighted by
speed (Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005), so that a replica that comes or goes moves only
its own share, with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018): no replica gets more than LOAD_BOUND times an
even share, and what exceeds it goes to the next one in hash order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmlaunch.common.dispatch_methods import DispatchMethod

LOAD_BOUND = 1.25
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that may be chosen."""

    key: str
    """Its worker_name."""
    speed: float
    """Relative, above 0: a replica of speed 2 gets twice the work of one of speed 1."""
    queue: int
    """Requests it works on or holds, now."""


def choose(
    dispatch: DispatchMethod, candidates: Sequence[Candidate], draw: float, turn: int = 0, prefix: bytes = b""
) -> Candidate:
    """Return one of ``candidates``.

    ``draw`` is uniform in [0, 1); ``turn`` counts the choices made so far; ``prefix`` is equal for requests with the same
    beginning; without one, ``prefix`` works like ``shortest_queue``.

    Raises ValueError when there is no candidate.
    """
    if not candidates:
        raise ValueError("no candidates to choose from")
    if dispatch == "prefix" and prefix:
        return _by_prefix(candidates, prefix)
    if dispatch in ("shortest_queue", "prefix"):
        least = min(c.queue / c.speed for c in candidates)
        best = [c for c in candidates if c.queue / c.speed == least]
        return best[int(draw * len(best))]
    if dispatch == "lottery":
        return _at(candidates, draw)
    # In turn.
    if len({c.speed for c in candidates}) == 1:
        return candidates[turn % len(candidates)]
    # Multiples of the golden ratio, modulo 1, are spread evenly however many there are (Weyl; Knuth, vol. 3, 6.4).
    return _at(candidates, turn * _GOLDEN % 1.0)


def _at(candidates: Sequence[Candidate], part: float) -> Candidate:
    """The candidate at ``part``, in [0, 1), of a line on which each is as long as its speed."""
    mark = part * sum(c.speed for c in candidates)
    for candidate in candidates:
        mark -= candidate.speed
        if mark < 0:
            return candidate
    return candidates[-1]  # a rounding error


def _by_prefix(candidates: Sequence[Candidate], prefix: bytes) -> Candidate:
    share = LOAD_BOUND * (1 + sum(c.queue for c in candidates)) / sum(c.speed for c in candidates)
    # At least one is below its bound: the bounds add up to more than all queues.
    below = [c for c in candidates if c.queue < math.ceil(share * c.speed)]
    return max(below, key=lambda c: _score(c, prefix))


def _score(candidate: Candidate, prefix: bytes) -> float:
    digest = hashlib.blake2b(candidate.key.encode(), key=prefix[:64], digest_size=8).digest()
    uniform = (int.from_bytes(digest) + 0.5) / 2**64
    return candidate.speed / -math.log(uniform)
