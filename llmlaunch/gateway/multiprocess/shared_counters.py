"""Counters in memory that the processes of one gateway share. Each process writes its own, and every process reads all.

So any process can answer /metrics with the sums over all of them. The counters of a process outlive it: its successor
continues them. They consist of two heartbeats and a list of records that only grows, in words of eight bytes::

    words in use │ beat │ parent's beat │ words of the name · values · name (JSON, padded) · value · value … │ next record …

Values are floats: integers are exact up to 2**53, and eight aligned bytes are written at once. A record is valid once
"words in use" includes it; that word is written last.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass

from llmlaunch.gateway.multiprocess.death_ledger import DeathLedger

SIZE = 4 << 20
"""Bytes for the counters of one process. Pages that are not used take no memory."""
_WORD = 8
_BEAT, _PARENT, _FIRST = 1, 2, 3
_SPARE = 64
"""Words at the end that are never read: values are written there when the memory is full."""

Name = tuple[str, ...]


class SharedCounters:
    """The counters of one process. They are made before the fork, and have one writer at a time."""

    def __init__(self, size: int = SIZE) -> None:
        """``size`` is in bytes."""
        # Anonymous and shared: child processes have the same memory.
        self._bytes = memoryview(mmap.mmap(-1, size))
        self.values = self._bytes.cast("d")
        """:meth:`place` returns indexes into it."""
        self._end = len(self.values) - _SPARE
        self._places: dict[Name, tuple[int, int]] = {}
        self._read_to = _FIRST
        self.full = False
        """A name found no room."""
        if not self.values[0]:
            self.values[0] = float(_FIRST)

    @property
    def beat(self) -> float:
        """The heartbeat: a number that the process increases while its event loop runs; see ``loop_liveness``."""
        return self.values[_BEAT]

    @beat.setter
    def beat(self, value: float) -> None:
        self.values[_BEAT] = value

    @property
    def parent_beat(self) -> float:
        """The parent's heartbeat, the only word that the parent writes."""
        return self.values[_PARENT]

    @parent_beat.setter
    def parent_beat(self, value: float) -> None:
        self.values[_PARENT] = value

    def place(self, name: Name, size: int = 1) -> int:
        """The index of the first of the ``size`` values of ``name``; new values are zero.

        When the memory is full, the index is that of values that are never read.
        """
        places = self.places()
        found = places.get(name)
        if found is None:
            found = self._append(name, size)
        return found[0]

    def places(self) -> Mapping[Name, tuple[int, int]]:
        """By name, the index of the first value and the number of values, including what another process has written."""
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
    """The processes of one gateway, as one of them sees them. Limits are divided evenly among them."""

    counters: tuple[SharedCounters, ...]
    """One for each process."""
    index: int = 0
    """The index of this process."""
    ledger: DeathLedger | None = None
    """The deaths of replicas that the processes share; None: there is only one process."""

    @property
    def size(self) -> int:
        """How many processes there are."""
        return len(self.counters)

    @property
    def own(self) -> SharedCounters:
        """The counters that this process writes."""
        return self.counters[self.index]


def single_process() -> ProcessGroup:
    """The group of a gateway with a single process."""
    return ProcessGroup((SharedCounters(),))
