"""Exchanges whose every step is held against the table of their phases."""

from __future__ import annotations

from llmlaunch.gateway.exchange.exchange import Exchange
from llmlaunch.gateway.exchange.lifecycle import NEXT, ExchangePhase


class CheckedExchange(Exchange):
    """Fails at a step that ``lifecycle.NEXT`` does not have."""

    __slots__ = ("_now_in", "phases")
    _now_in: ExchangePhase
    phases: list[ExchangePhase]

    @property
    def phase(self) -> ExchangePhase:
        return self._now_in

    @phase.setter
    def phase(self, after: ExchangePhase) -> None:
        if after is ExchangePhase.NEW:
            self.phases = [after]
        else:
            assert after in NEXT[self._now_in], f"{self._now_in} does not lead to {after}: {self.phases}"
            self.phases.append(after)
        self._now_in = after
