"""Asks verified workers whose heartbeat is late whether they are well.

Their supervisor sends the heartbeats. One that is frozen, or hangs on a disk, must not take engines out of the table that
serve as before: who answers as itself stays, for as long as it does.
"""

from __future__ import annotations

import asyncio
import logging

from llmlaunch.common.process_identity import ProcessId
from llmlaunch.controller import registry
from llmlaunch.controller.live_table import LiveTable
from llmlaunch.controller.probe_tasks import ProbeTasks
from llmlaunch.controller.table import RegisteredWorker
from llmlaunch.controller.worker_probe import Asker, NobodyThereError, NoStatusError, parse_address

TURN_S = 2.0
"""Seconds between two questions to one worker."""
log = logging.getLogger(__name__)


class LateWorkers:
    """The loop that asks them, each of them every ``turn_s`` seconds."""

    def __init__(self, asker: Asker, table: LiveTable, turn_s: float = TURN_S) -> None:
        self._asker, self._table, self._turn_s = asker, table, turn_s
        self._kept: set[str] = set()
        """Those of whom it was said that they are kept."""

    async def run(self) -> None:
        """Ask for ever. A worker that is slow to answer holds up nobody else's turn."""
        with ProbeTasks() as asking:
            while True:
                await asyncio.sleep(self._turn_s)
                late = registry.late(self._table.current, self._table.clock())
                self._kept &= {worker.name for worker in late}
                for worker in late:
                    if worker.name not in asking:
                        asking.start(worker.name, self._ask(worker))

    async def _ask(self, worker: RegisteredWorker) -> None:
        why, gone = "", False
        try:
            if worker.pid is not None and not ProcessId(worker.pid, worker.pid_started).alive:
                raise NobodyThereError(f"its process {worker.pid} has ended")
            await self._asker.is_well(
                parse_address(worker.name), worker.probe_path, worker.probe_timeout_s, worker.keyed
            )
        except NoStatusError as error:
            why, gone = str(error), isinstance(error, NobodyThereError)
        if not why:
            self._table.update(registry.answered(self._table.current, worker))
            if worker.name not in self._kept:
                self._kept.add(worker.name)
                log.warning(
                    "%s sends no heartbeats but answers: it stays listed; is its supervisor hung?",
                    worker.name,
                )
            return
        self._table.update(registry.unanswered(self._table.current, worker, gone=gone))
        if worker.name not in self._table.current.workers:
            log.warning("removed %s: no heartbeat, and %s", worker.name, why)
