"""PyTorch's number of threads, while other processes come and go on the same cores: the rule of ``common/cpu_threads``."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

import torch

from llmlaunch.common.cpu_threads import CpuTime, threads_for
from llmlaunch.hardware.cores import measure, usable_cores
from llmlaunch.worker.config import WorkerConfig

WINDOW_S = 0.5
"""Seconds between two measurements: long compared to the kernel's clock, which ticks a hundred times a second."""
IDLE_AFTER_S = 0.25
"""If there was no step for so many seconds, nothing is being computed and nothing needs to wait."""
FREE_CORE_S = 0.2
"""Maximum seconds for which other work waits for the computing threads to leave a core."""


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
