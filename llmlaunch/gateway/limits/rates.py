"""What one API key may use: requests and tokens a minute, requests at a time, models. Pure: time comes in.

Rates are token buckets that hold a minute's worth, so a client may use its minute at once and then goes on steadily.
Tokens are known only when an answer is over: a request is admitted on an estimate of its prompt, the difference is
settled at its end, and what was used beyond the bucket is owed before the next request is admitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from llmlaunch.gateway.limits.api_key import KeyLimits

BYTES_PER_TOKEN = 4
"""For estimates, where nobody told a number."""


@dataclass(frozen=True, slots=True)
class LimitExceeded:
    """Too much, for now."""

    what: str
    """"requests", "tokens" or "concurrency"."""
    wait_s: int
    """Whole seconds after which another try can work."""


@dataclass(slots=True)
class TokenBucket:
    """Full at first; filled again at an even rate."""

    size: int
    at: float
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = float(self.size)

    def fill(self, per_minute: int, now: float) -> float:
        """What is in it now. A bucket that has grown since the last time is as much fuller."""
        self.level += max(0, per_minute - self.size)
        self.size = per_minute
        self.level = min(float(per_minute), self.level + max(0.0, now - self.at) * per_minute / 60)
        self.at = now
        return self.level


@dataclass(slots=True)
class KeyAccount:
    """What one key uses. Survives a change of its limits."""

    in_flight: int = 0
    requests: TokenBucket | None = None
    tokens: TokenBucket | None = None

    def admit(self, limits: KeyLimits, now: float, estimate: int) -> LimitExceeded | None:
        """Take one request of about ``estimate`` tokens on, or say what is used up; then nothing is taken.

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
        """The request admitted with ``estimate`` is over and took ``used`` tokens."""
        self.in_flight -= 1
        if self.tokens is not None:
            self.tokens.level += estimate - used


def _seconds(missing: float, per_minute: int) -> int:
    return max(1, math.ceil(missing * 60 / per_minute))


@dataclass(slots=True)
class TokenMeter:
    """An estimate of the tokens in an answer, for those that do not tell: one an event of a stream."""

    size: int = 0
    events: int = 0

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        self.events += data.count(b"data:")

    @property
    def tokens(self) -> int:
        return self.events or self.size // BYTES_PER_TOKEN
