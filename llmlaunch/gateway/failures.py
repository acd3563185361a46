"""How a try at a replica can fail, and whose fault that may be. Pure."""

from __future__ import annotations

from enum import Enum


class FailureKind(Enum):
    """The value is what metrics call it."""

    REFUSED = "refused"
    """The replica did not accept a connection."""
    TIMEOUT = "timeout"
    """It did not accept one in time."""
    RESET = "reset"
    """The connection broke."""
    SILENT = "silent"
    """Nothing came for so long that the replica is taken for frozen."""
    INVALID = "bad_answer"
    """What came is not valid HTTP."""
    UNAVAILABLE = "unavailable"
    """It answered 503: it drains, or is still loading."""
    EMPTY = "empty"
    """A translated worker is alive and answered nothing."""

    @property
    def counts_against_health(self) -> bool:
        """Whether the replica's circuit breaker counts it."""
        return self is not FailureKind.UNAVAILABLE

    @property
    def is_death(self) -> bool:
        """Whether the replica died or froze, which may be the request's doing."""
        return self is FailureKind.RESET or self is FailureKind.SILENT
