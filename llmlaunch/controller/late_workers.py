"""Probes verified workers whose heartbeat is late.

Their supervisor sends the heartbeats. When it is suspended, or blocked by a disk, its engines still serve: each stays in the
table as long as it answers for itself.
"""

from __future__ import annotations

import asyncio
import logging

from llmlaunch.common.process_identity import ProcessId
from llmlaunch.controller import registry
from llmlaunch.controller.live_table import LiveTable
from llmlaunch.controller.probe_tasks import ProbeTasks
from llmlaunch.controller.table import RegisteredWorker
from llmlaunch.controller.worker_probe import NotListeningError, ProbeFailedError, WorkerProber, parse_address

INTERVAL_S = 2.0
"""Seconds between two probes of one worker."""
log = logging.getLogger(__name__)


class LateWorkerProber:
    """Probes each of them every ``interval_s`` seconds."""

    def __init__(self, prober: WorkerProber, table: LiveTable, interval_s: float = INTERVAL_S) -> None:
        self._prober, self._table, self._interval_s = prober, table, interval_s
        self._kept: set[str] = set()
        """Those that were logged as kept without heartbeats."""

    async def run(self) -> None:
        """Probe until cancelled. A worker that is slow to answer delays no other."""
        with ProbeTasks() as probes:
            while True:
                await asyncio.sleep(self._interval_s)
                late = registry.late_workers(self._table.current, self._table.clock())
                self._kept &= {worker.name for worker in late}
                for worker in late:
                    if worker.name not in probes:
                        probes.start(worker.name, self._probe(worker))

    async def _probe(self, worker: RegisteredWorker) -> None:
        why, gone = "", False
        try:
            if worker.pid is not None and not ProcessId(worker.pid, worker.pid_started).alive:
                raise NotListeningError(f"its process {worker.pid} has ended")
            await self._prober.check_health(
                parse_address(worker.name), worker.probe_path, worker.probe_timeout_s, worker.keyed
            )
        except ProbeFailedError as error:
            why, gone = str(error), isinstance(error, NotListeningError)
        if not why:
            self._table.update(registry.probe_succeeded(self._table.current, worker))
            if worker.name not in self._kept:
                self._kept.add(worker.name)
                log.warning(
                    "%s sends no heartbeats but answers: it stays listed; is its supervisor hung?",
                    worker.name,
                )
            return
        self._table.update(registry.probe_failed(self._table.current, worker, gone=gone))
        if worker.name not in self._table.current.workers:
            log.warning("removed %s: no heartbeat, and %s", worker.name, why)
