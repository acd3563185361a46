"""The controller's current table, the clock that moves it on, and whoever waits for it to change.

One event loop owns it, so no lock guards it: whoever changes it computes the next table from the current one in one step,
after everything that had to be awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from llmlaunch.controller import registry
from llmlaunch.controller.table import Table

TICK_S = 0.5
log = logging.getLogger(__name__)


class LiveTable:
    """``current`` is the table now; ``clock`` gives the seconds by which its leases are measured."""

    def __init__(self, first: Table, clock: Callable[[], float] = time.monotonic) -> None:
        self.current = first
        self.clock = clock
        self._changed = asyncio.Event()
        self._stopping = False

    def update(self, table: Table) -> None:
        """Make ``table`` the current one, and wake whoever waits for a newer revision."""
        changed = table.rev != self.current.rev
        self.current = table
        if changed:
            waiting, self._changed = self._changed, asyncio.Event()
            waiting.set()

    async def wait_for_newer(self, rev: int, wait_s: float) -> None:
        """Return once the revision is above ``rev``, after ``wait_s`` seconds, or when the controller stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self.current.rev <= rev and not self._stopping:
                    await self._changed.wait()

    async def expire_leases(self) -> None:
        """Tick until cancelled. A worker that is dropped because its heartbeats stopped is logged."""
        while True:
            await asyncio.sleep(TICK_S)
            before = self.current.workers.keys()
            self.update(registry.tick(self.current, self.clock()))
            for name in before - self.current.workers.keys():
                log.warning("removed %s: its heartbeats stopped", name)

    def stop(self) -> None:
        """Release everybody who waits, now and from now on, so that the server can end at once."""
        self._stopping = True
        self._changed.set()
