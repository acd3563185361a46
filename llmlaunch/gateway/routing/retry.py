"""Whether a failed request is tried again, and the budget of retries. Pure: time comes in (seconds)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

ATTEMPTS = 3
"""Attempts for one request. Fewer deaths of replicas are allowed: ``suspects.DEATHS``."""


class NextStep(Enum):
    """What follows a failed attempt."""

    REFUSE_CULPRIT = auto()
    """The request brings replicas down: no other replica is put at risk."""
    GIVE_UP = auto()
    """It has had all its attempts."""
    TRY_ANOTHER = auto()
    """Another replica may answer it, if the budget allows for a retry."""
    CHOOSE_AGAIN = auto()
    """There is no other replica now: choose among all that are back, if any."""


def after_failure(*, refused_s: float, attempts: int, has_alternative: bool) -> NextStep:
    """The step after a failed attempt.

    ``refused_s``: for how many seconds the request is refused because of the deaths with it. ``attempts`` include the
    failed one.
    """
    if refused_s:
        return NextStep.REFUSE_CULPRIT
    if attempts >= ATTEMPTS:
        return NextStep.GIVE_UP
    return NextStep.TRY_ANOTHER if has_alternative else NextStep.CHOOSE_AGAIN


def tried_after(tried: tuple[str, ...], failed: str, serving: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of the replicas that are left out now that ``failed`` has failed, too.

    Once all of several replicas have failed, only the last one is left out: the others may be back.
    """
    tried = (*tried, failed)
    if len(serving) > 1 and all(key in tried for key in serving):
        return (failed,)
    return tried


@dataclass(slots=True)
class RetryBudget:
    """Limits retries to a part of the requests, so that they cannot double the load on replicas that are failing.

    Each request adds SHARE of a retry. Some are added over time, so that a gateway with little traffic can retry, too.
    """

    level: float = 100.0
    at: float = 0.0

    SHARE: ClassVar[float] = 0.2
    """Retries that one request adds."""
    PER_S: ClassVar[float] = 10.0
    """Retries that a second adds."""
    RESERVE: ClassVar[float] = 100.0
    """The level up to which time fills the budget."""
    MOST: ClassVar[float] = 500.0
    """The highest level: so many requests can be retried when their replica dies."""

    def request(self) -> None:
        """Add the share of one request."""
        if self.level < self.MOST:
            self.level += self.SHARE

    def take(self, now: float) -> bool:
        """Take one retry; False if none is left. ``now`` in seconds."""
        if self.level < self.RESERVE:
            self.level = min(self.RESERVE, self.level + max(0.0, now - self.at) * self.PER_S)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True
