"""How many threads to compute with, as others come and go on the same cores.

The threads of one product wait for each other at its end. Where another process has taken the core of one of them, all
wait until it is scheduled again, hundreds of times in each step; a single thread never waits. So a worker takes as many
threads as there are cores that nobody else uses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch

WINDOW_S = 0.5
"""Between two looks: long against the kernel's clock, which ticks a hundred times a second."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Use:
    """Seconds so far: on the clock, of this process on any core, and that the cores stood still."""

    wall: float
    own: float
    idle: float


def fitting(before: Use, now: Use, most: int) -> int:
    """Threads for the cores that this process had or could have had between two looks; at least one. Pure."""
    wall = now.wall - before.wall
    if wall <= 0:
        return most
    cores = (now.own - before.own + now.idle - before.idle) / wall
    return max(1, min(most, round(cores)))


def idle_s(stat: str, cores: Collection[int]) -> float:
    """Seconds that ``cores`` have stood still, from the text of /proc/stat."""
    names = {f"cpu{core}" for core in cores}
    rows = (line.split() for line in stat.splitlines())
    # idle and iowait: proc_stat(5)
    return sum(int(row[4]) + int(row[5]) for row in rows if row and row[0] in names) / TICKS


def look() -> Use:
    """Raises OSError where there is no /proc/stat."""
    stat = Path("/proc/stat").read_text()
    return Use(time.monotonic(), time.process_time(), idle_s(stat, os.sched_getaffinity(0)))


class Share:
    """Sets PyTorch's threads for the thread that calls :meth:`adjust`, before it computes."""

    def __init__(
        self,
        most: int,
        look: Callable[[], Use] = look,
        set_threads: Callable[[int], None] = torch.set_num_threads,
    ) -> None:
        """``most``: threads when nobody else computes."""
        self._most = most
        self._look = look
        self._set = set_threads
        self._threads = 0
        self._before: Use | None = None
        self._next = 0.0

    def adjust(self) -> None:
        """Look again when the last look is old enough. Costs next to nothing in between."""
        if self._most == 1 or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + WINDOW_S
        try:
            now = self._look()
        except (OSError, ValueError, IndexError):
            self._next = float("inf")  # it can not be known here: stay with what was set
            return
        threads = fitting(self._before, now, self._most) if self._before else self._most
        self._before = now
        if threads != self._threads:
            self._threads = threads
            self._set(threads)
