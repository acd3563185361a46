"""Work with files beside the loop: a disk that hangs must not hold up the supervisor, and may never answer.

Threads of their own rather than asyncio's pool: that has a handful, and a handful of reads that hang would stop all others.
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
"""What a read or write may take before everybody goes on without it."""
_T = TypeVar("_T")
log = logging.getLogger(__name__)


class FileThreads:
    """Does things in threads, one at a time for each ``what``: what hangs is not tried again until it comes back."""

    def __init__(self) -> None:
        self._busy: set[str] = set()

    async def run(
        self, what: str, work: Callable[[], _T], otherwise: _T, patience_s: float = PATIENCE_S
    ) -> _T:
        """What ``work`` returns, or raises; ``otherwise`` when that takes too long. ``what`` is for the log."""
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
    """Hands values to ``work`` in a thread of its own; of those that come while it works, the newest alone."""

    def __init__(self, work: Callable[[_T], None]) -> None:
        self._work = work
        self._values: queue.SimpleQueue[_T | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="newest", daemon=True)
        self._thread.start()

    def put(self, value: _T) -> None:
        self._values.put(value)

    def finish(self, patience_s: float = PATIENCE_S) -> bool:
        """Wait until the last value is done; False when that takes too long. Blocks. Nothing may be put afterwards."""
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
    """Passes records on to ``handlers`` in a thread. Whoever logs never waits for a disk."""

    MOST = 10_000
    """Records that wait; beyond, new ones are lost."""

    def __init__(self, handlers: list[logging.Handler]) -> None:
        super().__init__()
        self._handlers = handlers
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(self.MOST)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @classmethod
    def install(cls) -> LogThread:
        """Put one in the place of the root logger's handlers."""
        root = logging.getLogger()
        made = cls(root.handlers)
        root.handlers = [made]
        return made

    def uninstall(self, patience_s: float = 2.0) -> None:
        """Have the handlers in their place again, once all is written or ``patience_s`` is over."""
        end = time.monotonic() + patience_s
        with contextlib.suppress(queue.Full):
            self._records.put(None, timeout=patience_s)
        self._thread.join(max(end - time.monotonic(), 0.0))
        if not self._thread.is_alive():
            logging.getLogger().handlers = self._handlers

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            # Now: what is logged may have changed when its turn comes, and a traceback needs its frames.
            record.message = record.getMessage()
            record.msg, record.args = record.message, None
            self._records.put_nowait(record)

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            for handler in self._handlers:
                handler.handle(record)
