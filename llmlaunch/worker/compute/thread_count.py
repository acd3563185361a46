"""How many threads to compute with, as others come and go on the same cores.

The threads of one product wait for each other at its end. Where another process has taken the core of one of them, all
wait until it is scheduled again, hundreds of times in each step; a single thread never waits. So a worker takes as many
threads as there are cores that nobody else uses.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

WINDOW_S = 0.5
"""Between two looks: long against the kernel's clock, which ticks a hundred times a second."""
TICKS = os.sysconf("SC_CLK_TCK")
STEPS_S = 0.25
"""Without a step for so long nothing is computed: nobody need make room."""
ROOM_S = 0.2
"""Work beside the steps waits for room no longer than that."""


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
        self._left = most
        """Threads for the cores that other processes leave."""
        self._before: Use | None = None
        self._next = 0.0
        self._beside = 0
        """Threads of this process that work beside the steps."""
        self._stepped_at = float("-inf")
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def making_room(self) -> Iterator[None]:
        """Around work of one other thread of this process that takes milliseconds or more: a core is left to it.

        A step that is under way is waited for: its threads would wait for each other all the time.
        """
        with self._changed:
            self._beside += 1
            began = time.monotonic()
            if self._most > 1 and began - self._stepped_at < STEPS_S:
                self._changed.wait_for(lambda: self._stepped_at > began, ROOM_S)
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1

    def adjust(self) -> None:
        """Before a step. Looks again when the last look is old enough; costs next to nothing in between."""
        if self._most == 1:
            return
        now = time.monotonic()
        if now >= self._next:
            self._look_again(now)
        threads = max(1, min(self._left, self._most - self._beside))
        if threads != self._threads:
            self._threads = threads
            self._set(threads)
        with self._changed:
            self._stepped_at = now
            if self._beside:
                self._changed.notify_all()

    def _look_again(self, now: float) -> None:
        self._next = now + WINDOW_S
        try:
            use = self._look()
        except (OSError, ValueError, IndexError):
            self._next = float("inf")  # it cannot be known here: stay with what was found
            return
        self._left = fitting(self._before, use, self._most) if self._before else self._most
        self._before = use
