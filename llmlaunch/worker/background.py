"""Long work outside the event loop: a few threads, a bounded queue, and work that stops when its client has left."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from llmlaunch.worker.errors import QueueFull

MOST_BYTES = 96 << 20
"""Total size of requests in progress or waiting: three of the largest. A single one is always accepted."""
MOST_WAITING = 1024
"""Number of requests in progress or waiting."""

Value = TypeVar("Value")


class AbandonedError(Exception):
    """Nobody waits for the result any more."""


_here = threading.local()


def check_abandoned() -> None:
    """Call between two parts of long work. Raises AbandonedError if nobody waits for the result any more."""
    left: Callable[[], bool] | None = getattr(_here, "left", None)
    if left is not None and left():
        raise AbandonedError


class BackgroundThreads:
    """Threads for long work. Only the work itself happens in them, everything else in the event loop."""

    def __init__(self, threads: int, name: str, *, most_bytes: int = MOST_BYTES) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most_bytes = most_bytes
        self._bytes = 0
        self._jobs = 0
        self._closed = threading.Event()

    async def run(self, size: int, work: Callable[..., Value], *arguments: Any) -> Value:
        """Run ``work(*arguments)`` for a request of ``size`` bytes in a thread. If cancelled, it stops at its next check.

        Raises QueueFull if too much is waiting already.
        """
        if self._jobs and (self._bytes + size > self._most_bytes or self._jobs >= MOST_WAITING):
            raise QueueFull(
                f"{self._jobs} long requests ({self._bytes >> 20} MiB) are in progress or waiting; try again later"
            )
        left = threading.Event()
        self._bytes += size
        self._jobs += 1
        job = self._threads.submit(self._watched, left, work, *arguments)
        loop = asyncio.get_running_loop()

        def over(_: Future[Value]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._release, size)

        job.add_done_callback(over)
        try:
            return await asyncio.wrap_future(job)
        finally:
            left.set()

    def close(self) -> None:
        """Abandon everything in progress or waiting."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _release(self, size: int) -> None:
        self._bytes -= size
        self._jobs -= 1

    def _watched(self, left: threading.Event, work: Callable[..., Value], *arguments: Any) -> Value:
        _here.left = lambda: left.is_set() or self._closed.is_set()
        try:
            check_abandoned()
            return work(*arguments)
        finally:
            _here.left = None
