"""Exchanges whose every step is held against the table of their phases."""

from __future__ import annotations

from llmlaunch.gateway.exchange import Exchange
from llmlaunch.gateway.exchange_lifecycle import NEXT, Phase


class CheckedExchange(Exchange):
    """Fails at a step that ``exchange_lifecycle.NEXT`` does not have."""

    __slots__ = ("_now_in", "phases")
    _now_in: Phase
    phases: list[Phase]

    @property
    def phase(self) -> Phase:
        return self._now_in

    @phase.setter
    def phase(self, after: Phase) -> None:
        if after is Phase.NEW:
            self.phases = [after]
        else:
            assert after in NEXT[self._now_in], f"{self._now_in} does not lead to {after}: {self.phases}"
            self.phases.append(after)
        self._now_in = after
