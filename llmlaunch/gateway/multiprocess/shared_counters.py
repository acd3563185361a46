"""Numbers in memory that the processes of one gateway share. Each writes counters of its own, and all read
everybody's.

So an answer to /metrics is the sum over all processes without asking any, and what a process counted outlives it: the
next one in its place goes on from there. They are two beats and a row of records that only grows, in words of eight
bytes::

    words in use │ beat │ parent's beat │ words of the name · values · name (JSON, padded) · value · value … │ next record …

Values are floats: whole numbers stay exact up to 2**53, and eight aligned bytes are written at once. A record counts
from the moment in which "words in use" includes it, which is written last.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass

from llmlaunch.gateway.multiprocess.death_ledger import DeathLedger

SIZE = 4 << 20
"""Bytes of one process's counters. Pages that hold nothing cost nothing."""
_WORD = 8
_BEAT, _PARENT, _FIRST = 1, 2, 3
_SPARE = 64
"""Words at the end that take what finds no room, and that nobody reads."""

Name = tuple[str, ...]


class SharedCounters:
    """Made before the processes fork, or by one alone. Has one writer at a time."""

    def __init__(self, size: int = SIZE) -> None:
        """``size`` is in bytes."""
        # Anonymous and shared: processes that fork from here on have the same memory.
        self._bytes = memoryview(mmap.mmap(-1, size))
        self.values = self._bytes.cast("d")
        """What :meth:`place` returns is an index of this."""
        self._end = len(self.values) - _SPARE
        self._places: dict[Name, tuple[int, int]] = {}
        self._read_to = _FIRST
        self.full = False
        """Something found no room."""
        if not self.values[0]:
            self.values[0] = float(_FIRST)

    @property
    def beat(self) -> float:
        """Turns of the writer's loop; see ``loop_liveness``."""
        return self.values[_BEAT]

    @beat.setter
    def beat(self, value: float) -> None:
        self.values[_BEAT] = value

    @property
    def parent_beat(self) -> float:
        """Turns of the loop of the parent, the one word here that it writes."""
        return self.values[_PARENT]

    @parent_beat.setter
    def parent_beat(self, value: float) -> None:
        self.values[_PARENT] = value

    def place(self, name: Name, size: int = 1) -> int:
        """Where the ``size`` values of ``name`` begin; they are zero when they are new.

        When there is no room the place is one that is never read: counting goes on without effect.
        """
        places = self.places()
        found = places.get(name)
        if found is None:
            found = self._append(name, size)
        return found[0]

    def places(self) -> Mapping[Name, tuple[int, int]]:
        """By name, where values begin and how many there are; what other processes wrote included."""
        end = int(self.values[0])
        while self._read_to < end:
            at = self._read_to
            words, size = int(self.values[at]), int(self.values[at + 1])
            text = bytes(self._bytes[(at + 2) * _WORD : (at + 2 + words) * _WORD])
            self._places[tuple(json.loads(text))] = (at + 2 + words, size)
            self._read_to = at + 2 + words + size
        return self._places

    def _append(self, name: Name, size: int) -> tuple[int, int]:
        text = json.dumps(name).encode()
        words = -(-len(text) // _WORD)
        at = int(self.values[0])
        end = at + 2 + words + size
        if end > self._end:
            self.full = True
            return self._end, size
        self.values[at], self.values[at + 1] = words, size
        self._bytes[(at + 2) * _WORD : (at + 2 + words) * _WORD] = text.ljust(words * _WORD)
        self.values[0] = end
        return self.places()[name]


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes that serve as one gateway, as one of them sees it. What is limited is shared out evenly."""

    counters: tuple[SharedCounters, ...]
    """One for each process."""
    index: int = 0
    """Which one is this process."""
    ledger: DeathLedger | None = None
    """What they tell each other; None: there is only one."""

    @property
    def size(self) -> int:
        """How many processes there are."""
        return len(self.counters)

    @property
    def own(self) -> SharedCounters:
        """The counters that this process writes."""
        return self.counters[self.index]


def alone() -> ProcessGroup:
    """The group of a gateway that is one process."""
    return ProcessGroup((SharedCounters(),))
