"""Deaths of replicas that the processes of one gateway share, so that a request that brought down two replicas in one
process is refused by all.

The memory is shared before the fork. It holds one ring buffer of entries for each process, which only that process
writes, and one word that changes with every entry: comparing that word is all that a request costs. Times are those of
the kernel's monotonic clock, which is the same in all processes. An entry is valid once the ring's count includes it; the
count is written last::

    last change │ count · entry · entry … (process 0) │ count · entry … (process 1) │ …
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ENTRIES = 256
"""Entries in each ring buffer; the oldest are overwritten."""
_WORD, _WIDTH = 8, 8
_RING = 1 + ENTRIES * _WIDTH
KEY_BYTES = 12
"""Bytes of the digest that identifies a body. They take two words, since floats hold integers up to 2**53."""
_HALF = KEY_BYTES // 2


@dataclass(frozen=True, slots=True)
class DeathRecord:
    """A replica died while it worked on a request; or, without a replica, the request got a complete response."""

    key: bytes
    """The digest of the request's body: KEY_BYTES bytes."""
    size: int
    """The size of the body in bytes."""
    replica: int
    """The :func:`replica_number` of the replica; 0: none."""
    sent_at: float
    """When the request was sent, in seconds of the monotonic clock."""
    at: float
    """When the replica died, on the same clock."""


def replica_number(replica: str) -> int:
    """The number that stands for ``replica`` in entries: its CRC-32, but never 0."""
    return zlib.crc32(replica.encode()) or 1


class DeathLedger:
    """The ring buffers of all processes. It is made before the fork; each process then uses :meth:`for_process` its index."""

    def __init__(self, processes: int, own: int = 0, values: memoryview[float] | None = None) -> None:
        """``values``: the memory of another ledger, to share it; None: new memory."""
        if values is None:
            values = memoryview(mmap.mmap(-1, (1 + processes * _RING) * _WORD)).cast("d")
        self._values = values
        self._read = [0] * processes
        self._last_change = 0.0
        self._own = own

    def for_process(self, index: int) -> DeathLedger:
        """The same ledger for the process ``index``."""
        return DeathLedger(len(self._read), index, self._values)

    @property
    def has_new_entries(self) -> bool:
        """Whether an entry was written since the last :meth:`read`."""
        return self._values[0] != self._last_change

    def write(self, entry: DeathRecord) -> None:
        """Add ``entry`` to this process's ring buffer, in place of the oldest if it is full."""
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
        values[0] = entry.at  # differs from all others; incrementing could lose another process's increment

    def read(self) -> Iterator[DeathRecord]:
        """Entries written since the last call by other processes, and by earlier processes with this index."""
        self._last_change = self._values[0]
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


def replica_name(number: int, replicas: Iterable[str]) -> str:
    """The one of ``replicas`` with that number; ``#number`` if there is none."""
    return next((replica for replica in replicas if replica_number(replica) == number), f"#{number}")
