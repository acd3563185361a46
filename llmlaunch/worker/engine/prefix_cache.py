"""Prefix caching: which idle rows of the KV cache still hold which tokens, and which row a new request gets. Pure.

A row keeps its tokens when its request ends. A later request that begins with the same tokens continues there, or, if
that would destroy a longer conversation or the row's own request still runs, in a copy of the common prefix.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from llmlaunch.worker.engine.scheduled_request import RunningRequest
from llmlaunch.worker.kv.types import CopyColumns, DropRow

LEAST_REUSE = 8
"""Tokens: a shorter common prefix is not worth copying."""


@dataclass(slots=True)
class IdleRow:
    """A row without a request, and the tokens its columns still hold."""

    tokens: list[int] = field(default_factory=list)
    used: int = 0
    """The step in which it was last used."""
    resident: int = 0
    """Columns written since the row was last released: a shorter request leaves more than its own tokens."""


@dataclass(frozen=True, slots=True)
class AssignedRow:
    """The row that a request gets."""

    row: int
    reused: int
    """Number of its tokens that need not be computed."""
    resident: int
    """Columns of the row that are in memory already."""


class PrefixCache:
    """The idle rows. Records what must be done to the KV cache before the next step computes."""

    def __init__(self, rows: int) -> None:
        self.idle = {row: IdleRow() for row in range(rows)}
        self._steps = 0
        self._moves: list[CopyColumns | DropRow] = []

    def begin_step(self) -> None:
        """Count a step: rows used from now on are newer than those used before."""
        self._steps += 1

    def take_moves(self) -> tuple[CopyColumns | DropRow, ...]:
        """The moves recorded since the last call, in order."""
        moves, self._moves = tuple(self._moves), []
        return moves

    def assign(self, tokens: list[int], running: Collection[RunningRequest], *, reuse: bool) -> AssignedRow:
        """Take an idle row for a request with ``tokens``; there must be one. Without ``reuse`` it starts empty."""
        source, common = self.longest_prefix(tokens, running) if reuse else (-1, 0)
        in_place = source in self.idle and 2 * common >= len(self.idle[source].tokens)
        row = source if in_place else self._oldest(spare=source)
        if common and row != source:
            if source in self.idle:
                self.idle[source].used = self._steps
            self._moves.append(CopyColumns(source, row, common))
        return AssignedRow(row, common, self.idle.pop(row).resident)

    def _oldest(self, spare: int) -> int:
        """An idle row: preferably an empty one, then the least recently used; ``spare`` only if there is no other."""
        return min(
            self.idle,
            key=lambda row: (row == spare, bool(self.idle[row].tokens), self.idle[row].used, row),
        )

    def longest_prefix(self, tokens: list[int], running: Collection[RunningRequest]) -> tuple[int, int]:
        """The idle or running row with the longest prefix common with ``tokens``, and its length in tokens.

        (-1, 0) if none is worth reusing. The last token is never reused: its logits are needed.
        """
        best, row = 0, -1
        limit = len(tokens) - 1
        for other, idle in self.idle.items():
            if min(len(idle.tokens), limit) > best:
                common = common_prefix(tokens, idle.tokens, min(len(idle.tokens), limit))
                if common > best:
                    best, row = common, other
        for one in running:
            if min(one.computed, limit) > best:
                common = common_prefix(tokens, one.tokens, min(one.computed, limit))
                if common > best:
                    best, row = common, one.row
        return (row, best) if best >= LEAST_REUSE else (-1, 0)

    def retire(self, running: RunningRequest) -> None:
        """Take back the row of a request that no longer runs; its computed tokens stay available."""
        resident = max(running.resident, running.computed)
        self.idle[running.row] = IdleRow(running.tokens[: running.computed], self._steps, resident)

    def evict(self, most: int) -> None:
        """Release the memory of idle rows, least recently used first, until they hold at most ``most`` tokens."""
        kept = sum(idle.resident for idle in self.idle.values())
        if kept <= most:
            return
        for row in sorted(self.idle, key=lambda row: self.idle[row].used):
            if kept <= most:
                break
            kept -= self.idle[row].resident
            self._drop(row)

    def _drop(self, row: int) -> None:
        if self.idle[row].resident:
            self.idle[row] = IdleRow()
            self._moves.append(DropRow(row))


def common_prefix(a: list[int], b: list[int], most: int) -> int:
    """Length of the common prefix of ``a`` and ``b``, up to ``most``."""
    if a[:most] == b[:most]:
        return most
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if a[low : middle + 1] == b[low : middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low
