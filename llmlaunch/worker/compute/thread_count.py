"""How many threads to compute with, while other processes come and go on the same cores.

The threads of one matrix product wait for each other at its end. If another process occupies the core of one of them,
all wait until it is scheduled again, hundreds of times in each step; a single thread never waits. So a worker uses as
many threads as there are cores that nobody else uses.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from llmlaunch.worker.config import WorkerConfig

WINDOW_S = 0.5
"""Seconds between two measurements: long compared to the kernel's clock, which ticks a hundred times a second."""
TICKS = os.sysconf("SC_CLK_TCK")
IDLE_AFTER_S = 0.25
"""If there was no step for so many seconds, nothing is being computed and nothing needs to wait."""
FREE_CORE_S = 0.2
"""Maximum seconds for which other work waits for the computing threads to leave a core."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds so far: wall clock, CPU time of this process, and idle time of its cores."""

    wall: float
    own: float
    idle: float


def threads_for(before: CpuTime, now: CpuTime, most: int) -> int:
    """Threads for the cores that this process used or could have used between two measurements; at least one. Pure."""
    wall = now.wall - before.wall
    if wall <= 0:
        return most
    cores = (now.own - before.own + now.idle - before.idle) / wall
    return max(1, min(most, round(cores)))


def idle_s(stat: str, cores: Collection[int]) -> float:
    """Seconds that ``cores`` have been idle, from the text of /proc/stat."""
    names = {f"cpu{core}" for core in cores}
    rows = (line.split() for line in stat.splitlines())
    # idle and iowait: proc_stat(5)
    return sum(int(row[4]) + int(row[5]) for row in rows if row and row[0] in names) / TICKS


def measure() -> CpuTime:
    """Measure now. Raises OSError if there is no /proc/stat."""
    stat = Path("/proc/stat").read_text()
    return CpuTime(time.monotonic(), time.process_time(), idle_s(stat, os.sched_getaffinity(0)))


class ThreadAdjuster:
    """Sets PyTorch's thread count for the thread that calls :meth:`adjust` before it computes."""

    def __init__(
        self,
        most: int,
        measure: Callable[[], CpuTime] = measure,
        set_threads: Callable[[int], None] = torch.set_num_threads,
    ) -> None:
        """``most``: number of threads when nothing else computes."""
        self._most = most
        self._measure = measure
        self._set = set_threads
        self._threads = 0
        self._left = most
        """Number of cores that other processes leave."""
        self._before: CpuTime | None = None
        self._next = 0.0
        self._beside = 0
        """Number of other threads of this process that are at work."""
        self._stepped_at = float("-inf")
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def free_core(self) -> Iterator[None]:
        """Leave a core to other work of this process that takes milliseconds or more.

        Waits for the current step to end: its threads would wait for each other all the time.
        """
        with self._changed:
            self._beside += 1
            began = time.monotonic()
            if self._most > 1 and began - self._stepped_at < IDLE_AFTER_S:
                self._changed.wait_for(lambda: self._stepped_at > began, FREE_CORE_S)
        try:
            yield
        finally:
            with self._changed:
                self._beside -= 1

    def adjust(self) -> None:
        """Call before a step. Measures again if the last measurement is old enough; otherwise nearly free."""
        if self._most == 1:
            return
        now = time.monotonic()
        if now >= self._next:
            self._measure_again(now)
        threads = max(1, min(self._left, self._most - self._beside))
        if threads != self._threads:
            self._threads = threads
            self._set(threads)
        with self._changed:
            self._stepped_at = now
            if self._beside:
                self._changed.notify_all()

    def _measure_again(self, now: float) -> None:
        self._next = now + WINDOW_S
        try:
            use = self._measure()
        except (OSError, ValueError, IndexError):
            self._next = float("inf")  # measuring is impossible here: keep the current number
            return
        self._left = threads_for(self._before, use, self._most) if self._before else self._most
        self._before = use


def set_threads(threads: int | None) -> None:
    """Set PyTorch's thread count; the default is OMP_NUM_THREADS, then the cores available to this process."""
    if threads is None and os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return
    torch.set_num_threads(threads or usable_cores())


def thread_adjuster(config: WorkerConfig, device: str) -> ThreadAdjuster | None:
    """Adjusts the thread count of the computing thread so that it leaves busy cores to other processes.

    None if the number of threads is configured, or must stay constant because seeds are strict.
    """
    told = config.threads is not None or os.environ.get("OMP_NUM_THREADS", "").isdigit()
    if device != "cpu" or told or config.strict_seeds:
        return None
    return ThreadAdjuster(torch.get_num_threads())


def usable_cores() -> int:
    """Number of physical cores available to this process by CPU affinity and cgroup quota."""
    allowed = len(os.sched_getaffinity(0))
    physical = psutil.cpu_count(logical=False) or allowed
    logical = psutil.cpu_count() or allowed
    # Hyper-threads share a core's vector units: more threads than physical cores only slow each other down.
    cores = max(1, allowed * physical // logical)
    quota = _cgroup_quota()
    return max(1, min(cores, quota)) if quota else cores


def _cgroup_quota() -> int | None:
    try:
        most, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return max(1, round(int(most) / int(period)))
    except (OSError, ValueError):
        return None
