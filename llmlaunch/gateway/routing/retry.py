"""Whether a request whose try at a replica failed gets another one, and how many retries there may be. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

ATTEMPTS = 3
"""Replicas one request may be sent to. It may meet fewer deaths: ``suspects.DEATHS``."""


class NextStep(Enum):
    """What a failed try leads to."""

    REFUSE_CULPRIT = auto()
    """It brought down replicas: no other one is put at risk."""
    GIVE_UP = auto()
    """It was tried often enough."""
    TRY_ANOTHER = auto()
    """Another replica may answer it, if the budget allows a retry."""
    CHOOSE_AGAIN = auto()
    """No other replica is there now: one that is back may take it, or nobody does."""


def after_failure(*, refused_s: float, attempts: int, has_alternative: bool) -> NextStep:
    """``refused_s``: the seconds for which the request is refused because of the deaths it was at."""
    if refused_s:
        return NextStep.REFUSE_CULPRIT
    if attempts >= ATTEMPTS:
        return NextStep.GIVE_UP
    return NextStep.TRY_ANOTHER if has_alternative else NextStep.CHOOSE_AGAIN


def tried_after(tried: tuple[str, ...], failed: str, serving: tuple[str, ...]) -> tuple[str, ...]:
    """The replicas that are not asked again once ``failed`` failed, too; all are replicas' keys.

    When every one of several has failed, those before this one may be back.
    """
    tried = (*tried, failed)
    if len(serving) > 1 and all(key in tried for key in serving):
        return (failed,)
    return tried


@dataclass(slots=True)
class RetryBudget:
    """Retries are a part of the requests, so that they cannot double the load on replicas that are failing already.

    Every request adds SHARE of a retry. Beside that some come with time, so that a quiet gateway can retry too.
    """

    level: float = 100.0
    at: float = 0.0

    SHARE: ClassVar[float] = 0.2
    PER_S: ClassVar[float] = 10.0
    RESERVE: ClassVar[float] = 100.0
    """Up to which time fills the budget."""
    MOST: ClassVar[float] = 500.0
    """A replica may die with this many requests in flight, and each finds another."""

    def request(self) -> None:
        if self.level < self.MOST:
            self.level += self.SHARE

    def take(self, now: float) -> bool:
        """Whether one retry is left; it is taken."""
        if self.level < self.RESERVE:
            self.level = min(self.RESERVE, self.level + max(0.0, now - self.at) * self.PER_S)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True
