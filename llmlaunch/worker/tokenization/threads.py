"""Work on long requests beside the event loop: in few threads, bounded, and given up when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from llmlaunch.worker.errors import QueueFull

MOST_BYTES = 96 << 20
"""Of requests that are worked on or wait for it: three of the largest. A single one is always taken."""
MOST_WAITING = 1024
"""Requests that are worked on or wait for it."""

Value = TypeVar("Value")


class Left(Exception):
    """Nobody waits for the result any more."""


_here = threading.local()


def go_on() -> None:
    """Called between two pieces of long work. Raises Left when nobody waits for it any more."""
    left: Callable[[], bool] | None = getattr(_here, "left", None)
    if left is not None and left():
        raise Left


class Apart:
    """Threads for long work. Everything but the work itself happens in the event loop."""

    def __init__(self, threads: int, name: str, *, most_bytes: int = MOST_BYTES) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most_bytes = most_bytes
        self._bytes = 0
        self._jobs = 0
        self._closed = threading.Event()

    async def run(self, size: int, work: Callable[..., Value], *arguments: Any) -> Value:
        """``work(*arguments)`` on a request of ``size`` bytes, in a thread. Cancelled, the work ends at its next piece.

        Raises QueueFull when too much waits already.
        """
        if self._jobs and (self._bytes + size > self._most_bytes or self._jobs >= MOST_WAITING):
            raise QueueFull(
                f"{self._jobs} long requests with {self._bytes >> 20} MiB are being read or wait for it; try again later"
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
        """Give up everything that runs or waits."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _release(self, size: int) -> None:
        self._bytes -= size
        self._jobs -= 1

    def _watched(self, left: threading.Event, work: Callable[..., Value], *arguments: Any) -> Value:
        _here.left = lambda: left.is_set() or self._closed.is_set()
        try:
            go_on()
            return work(*arguments)
        finally:
            _here.left = None
