"""A thread that notices when the supervisor's event loop hangs, logs where, and informs clients.

It does nothing else. What runs goes on serving while its supervisor hangs: the gateway has its routes, and the controller probes
the engines itself. Killing a hung supervisor would take all of that down, and a second one could not adopt it: every shim ends
its tree when the pipe to its owner breaks. So that is left to the user, who is told how.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
import traceback

from llmlaunch import paths
from llmlaunch.control import unresponsive

BEAT_S = 1.0
PATIENCE_S = 5.0
"""A loop that has not run for so long hangs: nothing in it takes a tenth of that."""
log = logging.getLogger(__name__)


class Watchdog:
    """Between :meth:`start` and :meth:`close`, for the event loop of the thread that calls them."""

    def __init__(
        self, where: paths.DeploymentPaths, patience_s: float = PATIENCE_S, beat_s: float = BEAT_S
    ) -> None:
        self._where = where
        self._patience_s, self._beat_s = patience_s, beat_s
        self._beat = time.monotonic()
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self._hangs = False
        self._beating: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the running event loop."""
        self._clear_report()
        self._beat, self._watched = time.monotonic(), threading.get_ident()
        self._beating = asyncio.create_task(self._keep_beating())
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Stop, and remove the report of a hang."""
        self._over.set()
        if self._beating is not None:
            self._beating.cancel()
        self._clear_report()

    async def _keep_beating(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(self._beat_s)

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._over.wait(self._beat_s):
            now = time.monotonic()
            paused = now - looked - self._beat_s
            looked = now
            if paused > self._patience_s:
                # This thread was suspended, too: the loop has had no time to run yet.
                log.warning(
                    "the whole process was suspended for %.0f s: it was stopped, or the machine slept", paused
                )
                self._beat = now
            elif now - self._beat > self._patience_s and not self._hangs:
                self._hangs = True
                self._report_hang(now)
            elif self._hangs and now - self._beat <= self._patience_s:
                self._hangs = False
                self._clear_report()
                log.warning("the supervisor's event loop is running again")

    def _report_hang(self, now: float) -> None:
        with contextlib.suppress(OSError):
            unresponsive.record_hang(self._where, self._beat)
        frame = sys._current_frames().get(self._watched)
        stack = "".join(traceback.format_stack(frame)) if frame else "(no thread)"
        log.error(
            "the supervisor's event loop has been blocked for %.0f s, here:\n%s",
            now - self._beat,
            stack.rstrip(),
        )

    def _clear_report(self) -> None:
        with contextlib.suppress(OSError):
            unresponsive.clear_hang(self._where)
