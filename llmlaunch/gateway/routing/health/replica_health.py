"""The health of one replica: its circuit breaker, its requests in flight, its slow start. Pure: time comes in (seconds).

The breaker::

        connection failed, or ERRORS_IN_A_ROW answers of 5xx
     CLOSED ────────────────────────────────────────────────────► OPEN  (rests; twice as long each time)
        ▲                                                          │ ▲
        │ an answer                                      rest over │ │ failed again
        └────────────────────────── HALF OPEN ◄────────────────────┘ │
                                (one request probes) ────────────────┘

A silent replica is left out, too, as long as it is doubted (``silence``). The gateway probes it with a request of its own.

A breaker only says which replicas to prefer. If those of all replicas of a model are open, requests are sent all the same:
no other replica could answer, and a refused connection costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from llmlaunch.common import backoff

REST_FIRST_S = 0.25
REST_MOST_S = 8.0
"""Seconds for which a breaker stays open: the first time, and at most."""
ERRORS_IN_A_ROW = 5
"""Answers of 500, 502 or 504 in a row that open the breaker. A single one may be the request's own fault."""
SLOW_START_S = 10.0
"""Seconds over which a replica that joins others gets more and more work: its caches are cold, its kernels not compiled."""
SLOW_START_FROM = 0.1
"""The part of its share that such a replica gets at first."""


class Breaker(IntEnum):
    """The state of a circuit breaker; the value is what metrics show."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(slots=True)
class ReplicaHealth:
    """The health of one replica, as one gateway process sees it."""

    in_flight: int = 0
    """This process's requests at the replica."""
    others: int = 0
    """Requests of other senders, as far as known."""
    failures: int = 0
    """How many times the breaker opened in a row, without a good answer in between."""
    errors: int = 0
    """Answers of 500, 502 or 504 in a row."""
    resting_until: float = 0.0
    """Until when the breaker is open."""
    probing: bool = False
    """The breaker is half open, and one request probes it."""
    doubted: bool = False
    """It is silent and may be frozen (``silence``)."""
    answers_begun: int = 0
    """How many of its answers have begun."""
    lacks: frozenset[bytes] = frozenset()
    """Paths of other dialects than OpenAI's that it does not have."""
    since: float | None = None
    """When it joined other replicas; None: it was there as early as they, or its slow start is over."""

    def reported(self, queue_length: int) -> None:
        """Take over the number of requests that the replica reports. It includes ours, which are counted exactly here."""
        self.others = max(0, queue_length - self.in_flight)

    def breaker(self, now: float) -> Breaker:
        """The state of the breaker; open for a doubted replica, too."""
        if self.doubted:
            return Breaker.OPEN
        if not self.failures:
            return Breaker.CLOSED
        return Breaker.OPEN if now < self.resting_until else Breaker.HALF_OPEN

    def takes(self, now: float) -> bool:
        """Whether it is preferred: its breaker is closed, or half open and no request probes it yet."""
        if self.doubted:
            return False
        return not self.failures or (self.resting_until <= now and not self.probing)

    def failed(self, now: float) -> None:
        """Open the breaker because a connection was refused or broke: for twice as long each time."""
        self.probing = False
        if now >= self.resting_until:  # several requests meet the same death; it is one failure
            self.failures += 1
            self.resting_until = now + backoff.delay(self.failures, REST_FIRST_S, REST_MOST_S)

    def erred(self, now: float) -> None:
        """Note an answer of 500, 502 or 504."""
        self.errors += 1
        if self.failures or self.errors >= ERRORS_IN_A_ROW:
            self.failed(now)

    def answered(self) -> None:
        """Note a good answer: the breaker closes."""
        self.failures = self.errors = 0
        self.resting_until = 0.0
        self.probing = False

    def joined(self, now: float | None) -> None:
        """Start anew: a replica was added. ``now``: the time if it joins others, which begins its slow start, else None."""
        self.answered()
        self.lacks = frozenset()
        self.since = now

    def warmth(self, now: float) -> float:
        """The part of its share of work that it gets: from SLOW_START_FROM to 1."""
        if self.since is None:
            return 1.0
        age = now - self.since
        if age >= SLOW_START_S:
            self.since = None
            return 1.0
        return max(SLOW_START_FROM, age / SLOW_START_S)
