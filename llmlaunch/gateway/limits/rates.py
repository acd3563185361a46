"""Limits of one API key: requests and tokens a minute, and requests at a time. Pure: time comes in (seconds).

Rates are token buckets that hold a minute's worth, so a client may use a whole minute's share at once and then continues
at a steady rate. The tokens of a request are known only when it has ended: it is admitted on an estimate of its prompt,
and the difference is settled at its end. A bucket may go below zero, and must fill up before the next request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from llmlaunch.gateway.limits.api_key import KeyLimits

BYTES_PER_TOKEN = 4
"""For estimates, where no number was reported."""


@dataclass(frozen=True, slots=True)
class LimitExceeded:
    """The limit that refuses a request for now."""

    what: str
    """"requests", "tokens" or "concurrency"."""
    wait_s: int
    """Whole seconds after which the request may succeed."""


@dataclass(slots=True)
class TokenBucket:
    """Starts full and refills at a steady rate."""

    size: int
    at: float
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = float(self.size)

    def fill(self, per_minute: int, now: float) -> float:
        """Refill it, and return its level. If ``per_minute`` has grown since, the level grows by as much."""
        self.level += max(0, per_minute - self.size)
        self.size = per_minute
        self.level = min(float(per_minute), self.level + max(0.0, now - self.at) * per_minute / 60)
        self.at = now
        return self.level


@dataclass(slots=True)
class KeyAccount:
    """What one key uses. It outlives a change of the key's limits."""

    in_flight: int = 0
    requests: TokenBucket | None = None
    tokens: TokenBucket | None = None

    def admit(self, limits: KeyLimits, now: float, estimate: int) -> LimitExceeded | None:
        """Charge one request of about ``estimate`` tokens; or return the limit that is exceeded, and charge nothing.

        A request larger than a whole minute's tokens is admitted once the bucket is full.
        """
        if limits.concurrency is not None and self.in_flight >= limits.concurrency:
            return LimitExceeded("concurrency", 1)
        if limits.rpm is not None:
            if self.requests is None:
                self.requests = TokenBucket(limits.rpm, now)
            missing = 1 - self.requests.fill(limits.rpm, now)
            if missing > 0:
                return LimitExceeded("requests", _seconds(missing, limits.rpm))
        if limits.tpm is not None:
            if self.tokens is None:
                self.tokens = TokenBucket(limits.tpm, now)
            missing = min(max(estimate, 1), limits.tpm) - self.tokens.fill(limits.tpm, now)
            if missing > 0:
                return LimitExceeded("tokens", _seconds(missing, limits.tpm))
            self.tokens.level -= estimate
        if self.requests is not None:
            self.requests.level -= 1
        self.in_flight += 1
        return None

    def settle(self, estimate: int, used: int) -> None:
        """The request that was admitted with ``estimate`` tokens has ended and used ``used``."""
        self.in_flight -= 1
        if self.tokens is not None:
            self.tokens.level += estimate - used


def _seconds(missing: float, per_minute: int) -> int:
    return max(1, math.ceil(missing * 60 / per_minute))


@dataclass(slots=True)
class TokenMeter:
    """Estimates the tokens of an answer that does not report its usage: one for each event of a stream."""

    size: int = 0
    events: int = 0

    def feed(self, data: bytes) -> None:
        """Count the next bytes of the answer."""
        self.size += len(data)
        self.events += data.count(b"data:")

    @property
    def tokens(self) -> int:
        """The estimate so far: the number of events, or without any, of tokens in so many bytes."""
        return self.events or self.size // BYTES_PER_TOKEN
