"""What the gateway knows of one replica beside its row in the table: requests, health, age. Pure: time comes in.

The breaker::

              refused or broke, or ERRORS_IN_A_ROW answers of 5xx
     CLOSED ────────────────────────────────────────────────────► OPEN  (rests; twice as long each time)
        ▲                                                          │ ▲
        │ an answer                                      rest over │ │ failed again
        └────────────────────────── HALF OPEN ◄────────────────────┘ │
                                (one request probes) ────────────────┘

One that says nothing is left out as well, for as long as it is doubted (``silence``): then a request of our own probes.

A breaker only says whom to prefer. When all replicas of a model are open, they are asked all the same: nobody else
could answer, and a refused connection costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from llmlaunch.common import backoff

REST_FIRST_S = 0.25
REST_MOST_S = 8.0
ERRORS_IN_A_ROW = 5
"""Answers of 500, 502 or 504 after which a replica rests. One may be the request's own fault."""
SLOW_START_S = 10.0
"""A replica that joins others gets its share of the work over this time: caches are cold, kernels are compiled late."""
SLOW_START_FROM = 0.1


class Breaker(IntEnum):
    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(slots=True)
class ReplicaHealth:
    in_flight: int = 0
    """This gateway's own requests at it."""
    others: int = 0
    """Requests of others, as far as known."""
    failures: int = 0
    """Rests in a row, without a good answer in between."""
    errors: int = 0
    """Answers of 5xx in a row."""
    resting_until: float = 0.0
    probing: bool = False
    """Half open, and one request is on its way to see."""
    doubted: bool = False
    """It is silent, and may be frozen (``silence``)."""
    answers_begun: int = 0
    """Answers of it that have begun."""
    since: float | None = None
    """When it joined replicas that were there before (seconds); None: it is as old as they."""

    def reported(self, queue_length: int) -> None:
        """The replica told how many requests it holds. Our own are among them and are counted exactly already."""
        self.others = max(0, queue_length - self.in_flight)

    def breaker(self, now: float) -> Breaker:
        if self.doubted:
            return Breaker.OPEN
        if not self.failures:
            return Breaker.CLOSED
        return Breaker.OPEN if now < self.resting_until else Breaker.HALF_OPEN

    def takes(self, now: float) -> bool:
        """Whether it may be preferred: closed, or half open and nobody probes."""
        if self.doubted:
            return False
        return not self.failures or (self.resting_until <= now and not self.probing)

    def failed(self, now: float) -> None:
        """A connection was refused or broke: rest, twice as long each time (seconds)."""
        self.probing = False
        if now >= self.resting_until:  # several requests meet the same death; it is one failure
            self.failures += 1
            self.resting_until = now + backoff.delay(self.failures, REST_FIRST_S, REST_MOST_S)

    def erred(self, now: float) -> None:
        """It answered, with an error of its own."""
        self.errors += 1
        if self.failures or self.errors >= ERRORS_IN_A_ROW:
            self.failed(now)

    def answered(self) -> None:
        """A good answer: all is forgiven."""
        self.failures = self.errors = 0
        self.resting_until = 0.0
        self.probing = False

    def joined(self, now: float | None) -> None:
        """It is new (again), whoever failed at its address before. ``now``: and it joins others, else None."""
        self.answered()
        self.since = now

    def warmth(self, now: float) -> float:
        """What part of its share it should get: from SLOW_START_FROM to 1."""
        if self.since is None:
            return 1.0
        age = now - self.since
        if age >= SLOW_START_S:
            self.since = None
            return 1.0
        return max(SLOW_START_FROM, age / SLOW_START_S)
