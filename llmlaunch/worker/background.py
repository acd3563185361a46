"""Runs long work outside the event loop: in a few threads, with a bounded queue. Work stops when its client has left."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from llmlaunch.worker.errors import QueueFull

MAX_BYTES = 96 << 20
"""Total size of requests in progress or waiting: enough for three of the largest. A single one is always accepted."""
MAX_JOBS = 1024
"""Number of requests in progress or waiting."""

Value = TypeVar("Value")


class AbandonedError(Exception):
    """Raised inside work whose result nobody waits for any more."""


_thread = threading.local()


def check_abandoned() -> None:
    """Call this between two parts of long work. Raises AbandonedError if nobody waits for the result any more."""
    is_abandoned: Callable[[], bool] | None = getattr(_thread, "is_abandoned", None)
    if is_abandoned is not None and is_abandoned():
        raise AbandonedError


class BackgroundThreads:
    """Threads for long work. Only the work itself runs in them; everything else runs in the event loop."""

    def __init__(self, threads: int, name: str, *, max_bytes: int = MAX_BYTES) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._jobs = 0
        self._closed = threading.Event()

    async def run(self, size: int, work: Callable[..., Value], *arguments: Any) -> Value:
        """Run ``work(*arguments)`` for a request of ``size`` bytes in a thread. If cancelled, it stops at its next check.

        Raises QueueFull if too much is waiting already.
        """
        if self._jobs and (self._bytes + size > self._max_bytes or self._jobs >= MAX_JOBS):
            raise QueueFull(
                f"{self._jobs} long requests ({self._bytes >> 20} MiB) are in progress or waiting; try again later"
            )
        abandoned = threading.Event()
        self._bytes += size
        self._jobs += 1
        job = self._threads.submit(self._watched, abandoned, work, *arguments)
        loop = asyncio.get_running_loop()

        def release(_: Future[Value]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._release, size)

        job.add_done_callback(release)
        try:
            return await asyncio.wrap_future(job)
        finally:
            abandoned.set()

    def close(self) -> None:
        """Abandon everything in progress or waiting."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _release(self, size: int) -> None:
        self._bytes -= size
        self._jobs -= 1

    def _watched(self, abandoned: threading.Event, work: Callable[..., Value], *arguments: Any) -> Value:
        _thread.is_abandoned = lambda: abandoned.is_set() or self._closed.is_set()
        try:
            check_abandoned()
            return work(*arguments)
        finally:
            _thread.is_abandoned = None
