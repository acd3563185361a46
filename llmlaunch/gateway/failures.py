"""How an attempt at a replica can fail, and what that says about the replica. Pure."""

from __future__ import annotations

from enum import Enum


class InvalidResponse(ValueError):
    """A worker sent something that is not valid HTTP/1.1, or that its protocol does not allow."""


class FailureKind(Enum):
    """The kinds of failures. The value is their label in the metrics."""

    REFUSED = "refused"
    """The replica did not accept a connection."""
    TIMEOUT = "timeout"
    """It did not accept a connection in time."""
    RESET = "reset"
    """The connection broke."""
    SILENT = "silent"
    """It sent nothing for so long that it is taken for frozen."""
    INVALID = "bad_answer"
    """Its answer is not valid HTTP."""
    UNAVAILABLE = "unavailable"
    """It answered 503: it is draining or still loading."""
    EMPTY = "empty"
    """A FastChat worker is alive but its answer was empty."""

    @property
    def counts_against_health(self) -> bool:
        """Whether it counts for the replica's circuit breaker."""
        return self is not FailureKind.UNAVAILABLE

    @property
    def is_death(self) -> bool:
        """Whether the replica died or froze, which the request may have caused."""
        return self is FailureKind.RESET or self is FailureKind.SILENT
