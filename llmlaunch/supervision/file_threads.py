"""File I/O in threads: a disk that hangs must not block the supervisor, and may never answer.

These are threads of their own rather than asyncio's pool, which is small: a few reads that hang would block all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

PATIENCE_S = 5.0
"""Seconds that a read or write may take before its caller goes on without it."""
_T = TypeVar("_T")
log = logging.getLogger(__name__)


class FileThreads:
    """Runs functions in threads, one at a time for each ``what``: one that hangs is not tried again until it returns."""

    def __init__(self) -> None:
        self._busy: set[str] = set()

    async def run(
        self, what: str, work: Callable[[], _T], otherwise: _T, patience_s: float = PATIENCE_S
    ) -> _T:
        """The result or exception of ``work``; ``otherwise`` after ``patience_s`` seconds, or if ``what`` still hangs.

        ``what`` also describes it in the log.
        """
        if what in self._busy:
            return otherwise
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_T] = loop.create_future()

        def settle(result: _T | None, error: BaseException | None) -> None:
            self._busy.discard(what)
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def go() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is over
                loop.call_soon_threadsafe(settle, result, error)

        self._busy.add(what)
        threading.Thread(target=go, name=what, daemon=True).start()
        try:
            return await asyncio.wait_for(done, patience_s)
        except TimeoutError:
            if not done.cancelled():
                raise  # the work's own
            log.warning("%s: not done within %g s; continuing without it", what, patience_s)
            return otherwise


class LatestValueThread(Generic[_T]):
    """Passes values to ``work`` in a thread; of those that arrive while it is busy, only the newest."""

    def __init__(self, work: Callable[[_T], None]) -> None:
        self._work = work
        self._values: queue.SimpleQueue[_T | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="newest", daemon=True)
        self._thread.start()

    def put(self, value: _T) -> None:
        """Pass ``value`` on; never blocks."""
        self._values.put(value)

    def finish(self, patience_s: float = PATIENCE_S) -> bool:
        """Wait until the last value is processed; False after ``patience_s`` seconds. Blocks. No value may follow."""
        self._values.put(None)
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        over = False
        while not over:
            waiting = [self._values.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.append(self._values.get_nowait())
            over = waiting[-1] is None
            values = [value for value in waiting if value is not None]
            if values:
                self._work(values[-1])


class LogThread(logging.Handler):
    """Passes log records to ``handlers`` in a thread, so that logging never waits for a disk."""

    MOST = 10_000
    """Records that may wait; further ones are dropped."""

    def __init__(self, handlers: list[logging.Handler]) -> None:
        super().__init__()
        self._handlers = handlers
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(self.MOST)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @classmethod
    def install(cls) -> LogThread:
        """Replace the root logger's handlers by one of these that passes on to them."""
        root = logging.getLogger()
        made = cls(root.handlers)
        root.handlers = [made]
        return made

    def uninstall(self, patience_s: float = 2.0) -> None:
        """Restore the handlers, once everything is written, or after ``patience_s`` seconds."""
        end = time.monotonic() + patience_s
        with contextlib.suppress(queue.Full):
            self._records.put(None, timeout=patience_s)
        self._thread.join(max(end - time.monotonic(), 0.0))
        if not self._thread.is_alive():
            logging.getLogger().handlers = self._handlers

    def emit(self, record: logging.LogRecord) -> None:
        """Queue ``record``; drop it if the queue is full."""
        with contextlib.suppress(queue.Full):
            # Format it now: its arguments may change before the thread gets to it, and a traceback needs its frames.
            record.message = record.getMessage()
            record.msg, record.args = record.message, None
            self._records.put_nowait(record)

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            for handler in self._handlers:
                handler.handle(record)
