"""Deaths that the processes of one gateway tell each other, so that what brought two replicas down in one of them is
refused by all.

Memory that was shared before they forked holds a ring of entries for each process, which it alone writes, and one word
that changes with every entry: a look at it is all that a request pays. Times are the kernel's monotonic clock, which
is the same for all. An entry counts once its ring's number of entries includes it, which is written after it::

    news │ entries so far · entry · entry … (process 0) │ entries so far · entry … (process 1) │ …
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ENTRIES = 256
"""In each ring; the oldest are written over."""
_WORD, _WIDTH = 8, 8
_RING = 1 + ENTRIES * _WIDTH
KEY_BYTES = 12
"""Of the digest by which a body is known: two words, for floats hold whole numbers up to 2**53."""
_HALF = KEY_BYTES // 2


@dataclass(frozen=True, slots=True)
class DeathRecord:
    """``replica`` died at ``at`` with a request of these bytes; or, without a replica, they got a whole answer."""

    key: bytes
    size: int
    replica: int
    """:func:`number_of` it; 0: none."""
    sent_at: float
    at: float


def number_of(replica: str) -> int:
    """The number by which entries name ``replica``: its CRC-32, but never 0."""
    return zlib.crc32(replica.encode()) or 1


class DeathLedger:
    """Made before the processes fork; each then has it :meth:`seen_by` its own place."""

    def __init__(self, processes: int, own: int = 0, values: memoryview[float] | None = None) -> None:
        """``values``: of another one, to share its memory."""
        if values is None:
            values = memoryview(mmap.mmap(-1, (1 + processes * _RING) * _WORD)).cast("d")
        self._values = values
        self._read = [0] * processes
        self._news = 0.0
        self._own = own

    def seen_by(self, index: int) -> DeathLedger:
        """The same memory, for the process of that index."""
        return DeathLedger(len(self._read), index, self._values)

    @property
    def has_news(self) -> bool:
        """Whether anybody has written since the last :meth:`read`."""
        return self._values[0] != self._news

    def write(self, entry: DeathRecord) -> None:
        """Add ``entry`` to this process's ring, over the oldest if it is full."""
        values, start = self._values, 1 + self._own * _RING
        count = int(values[start])
        at = start + 1 + count % ENTRIES * _WIDTH
        key = (int.from_bytes(part) for part in (entry.key[:_HALF], entry.key[_HALF:KEY_BYTES]))
        fields = (*key, entry.size, entry.replica, entry.sent_at, entry.at)
        for offset, value in enumerate(fields):
            values[at + offset] = float(value)
        values[start] = float(count + 1)
        if self._read[self._own] == count:
            self._read[self._own] = count + 1
        values[0] = entry.at  # unlike any other's: to add one could lose what somebody else adds

    def read(self) -> Iterator[DeathRecord]:
        """What others have written since the last time, and whoever had this place before."""
        self._news = self._values[0]
        for index, read in enumerate(self._read):
            start = 1 + index * _RING
            count = int(self._values[start])
            for number in range(max(read, count - ENTRIES), count):
                yield self._entry(start + 1 + number % ENTRIES * _WIDTH)
            self._read[index] = count

    def _entry(self, at: int) -> DeathRecord:
        high, low, size, replica, sent_at, died_at = self._values[at : at + 6].tolist()
        key = int(high).to_bytes(_HALF) + int(low).to_bytes(_HALF)
        return DeathRecord(key, int(size), int(replica), sent_at, died_at)


def named(number: int, replicas: Iterable[str]) -> str:
    """The replica of that number; one that is not among ``replicas`` has its number for a name."""
    return next((replica for replica in replicas if number_of(replica) == number), f"#{number}")
