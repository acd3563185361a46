"""Requests that wait for a free slot: bounded per model, fair between API keys. Pure.

Within a key: first come, first served. Between keys: in turn, and the key that was served longest ago goes first, however
many requests of other keys are waiting. A lower priority goes first, as in vLLM. When the queue of a model is full, a new
request takes the place of the newest request of the key that has most of them there, if that is fair.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class QueueEntry(Generic[T]):
    """One request that waits."""

    item: T
    name: str
    """The model it waits for."""
    key: str
    """The name of its API key."""
    deadline: float
    """The time after which it is overdue (seconds)."""
    number: int
    """Entries are numbered in the order in which they came."""
    priority: int
    """Lower goes first."""


_by_number = attrgetter("number")


@dataclass(slots=True)
class RequestQueue(Generic[T]):
    """The queues of all models."""

    _queues: dict[str, dict[str, OrderedDict[int, QueueEntry[T]]]] = field(default_factory=dict)
    """Entries by number, by model and key."""
    _last_served: dict[str, int] = field(default_factory=dict)
    """Key → the turn in which it was served last. It holds at most the keys of the keys file."""
    _next: int = 0
    _turn: int = 0

    def __len__(self) -> int:
        return sum(self.waiting(name) for name in self._queues)

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def names(self) -> list[str]:
        """The models that requests wait for."""
        return list(self._queues)

    def waiting(self, name: str) -> int:
        """How many requests wait for the model ``name``."""
        return sum(map(len, self._queues.get(name, {}).values()))

    def add(
        self, item: T, name: str, deadline: float, bound: int, key: str = "", priority: int = 0
    ) -> QueueEntry[T] | None:
        """Add ``item`` to the queue for ``name``; None if ``bound`` requests wait for ``name`` already."""
        if self.waiting(name) >= bound:
            return None
        self._next += 1
        entry = QueueEntry(item, name, key, deadline, self._next, priority)
        self._queues.setdefault(name, {}).setdefault(key, OrderedDict())[entry.number] = entry
        return entry

    def evictable(self, name: str, key: str) -> QueueEntry[T] | None:
        """The entry that a new request of ``key`` may replace: the newest of the key with most requests for ``name``.

        None if ``key`` would then have as many requests as that key, or more.
        """
        queues = self._queues.get(name, {})
        if not queues:
            return None
        largest = max(queues.values(), key=len)
        if len(largest) < len(queues.get(key, ())) + 2:
            return None
        return next(reversed(largest.values()))

    def remove(self, entry: QueueEntry[T]) -> None:
        """Remove ``entry``, if it is still there."""
        queues = self._queues.get(entry.name, {})
        queue = queues.get(entry.key)
        if queue is None:
            return
        queue.pop(entry.number, None)
        if not queue:
            del queues[entry.key]
            if not queues:
                del self._queues[entry.name]

    def holds(self, entry: QueueEntry[T]) -> bool:
        """Whether ``entry`` still waits."""
        return entry.number in self._queues.get(entry.name, {}).get(entry.key, ())

    def mark_served(self, entry: QueueEntry[T]) -> None:
        """Note that ``entry`` gets a slot now, so that its key comes last the next time."""
        self._turn += 1
        self._last_served[entry.key] = self._turn

    def in_order(self, names: Iterable[str]) -> Iterator[QueueEntry[T]]:
        """The entries that wait for one of ``names``, in the order in which to serve them; none is removed.

        Entries that are added or removed meanwhile do not change the result.
        """
        found: dict[str, list[list[QueueEntry[T]]]] = {}
        for name in names:
            for key, queue in self._queues.get(name, {}).items():
                found.setdefault(key, []).append(list(queue.values()))
        lines = [list(heapq.merge(*queues, key=_by_number)) for queues in found.values()]
        lines.sort(key=lambda line: (line[0].priority, self._last_served.get(line[0].key, 0), line[0].number))
        return _turn_by_turn(lines)

    def overdue(self, now: float) -> list[QueueEntry[T]]:
        """The entries whose deadline has passed, oldest first; none is removed."""
        found = [
            entry
            for queues in self._queues.values()
            for queue in queues.values()
            for entry in queue.values()
            if entry.deadline <= now
        ]
        return sorted(found, key=_by_number)


def _turn_by_turn(lines: list[list[QueueEntry[T]]]) -> Iterator[QueueEntry[T]]:
    """One entry of each line in turn, priority by priority. ``lines`` are sorted by priority."""
    at = 0
    while at < len(lines):
        priority = lines[at][0].priority
        equal = [line for line in lines[at:] if line[0].priority == priority]
        at += len(equal)
        rounds = 0
        while equal:
            yield from (line[rounds] for line in equal)
            rounds += 1
            equal = [line for line in equal if len(line) > rounds]
