"""Which processes are probed now: each that is starting or ready, by one task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from llmlaunch import paths
from llmlaunch.planning.types import ProcessSpec
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import Phase, Probed, Progressed
from llmlaunch.supervision.credentials import key_of
from llmlaunch.supervision.health.answer_counts import AnswerCounts
from llmlaunch.supervision.health.probe import ProcessProbe
from llmlaunch.supervision.running_processes import Key, RunningProcesses

_Settings = tuple[str, str, float | None]
Report = Callable[[str, Probed | Progressed], None]
"""Takes a component's name and what a probe of it has found."""


class ComponentProbes:
    """:meth:`follow` starts and ends the tasks. ``on_ready`` gets each incarnation's spec at its first good probe.

    ``downloaded`` returns how many bytes of a component's model are on the disk, and may block.
    """

    def __init__(
        self,
        where: paths.DeploymentPaths,
        policy: Policy,
        secret: str,
        running: RunningProcesses,
        report: Report,
        on_ready: Callable[[ProcessSpec, int], None],
        downloaded: Callable[[ProcessSpec], int],
    ) -> None:
        self._where, self._policy, self._secret, self._running = where, policy, secret, running
        self._report, self._on_ready, self._downloaded = report, on_ready, downloaded
        self._answered = AnswerCounts()
        self._tasks: dict[Key, tuple[_Settings, asyncio.Task[None]]] = {}

    def follow(self, slots: Mapping[str, Slot]) -> None:
        """Bring the tasks to the state in ``slots``. Cheap: called after every change."""
        self._answered.follow(slots)
        wanted = {
            (name, slot.record.incarnation): slot
            for name, slot in slots.items()
            if slot.record.pid is not None and slot.record.phase in (Phase.STARTING, Phase.READY)
        }
        for key, (settings, task) in list(self._tasks.items()):
            # A plan may change how a process is probed, and leave it running.
            if key not in wanted or settings != _settings(wanted[key].spec):
                task.cancel()
                del self._tasks[key]
        for key, slot in wanted.items():
            if key not in self._tasks:
                task = asyncio.create_task(self._probe(slot).run(slot.record.phase is Phase.READY))
                self._tasks[key] = _settings(slot.spec), task

    def close(self) -> None:
        """Cancel all of them."""
        for _, task in self._tasks.values():
            task.cancel()

    def _probe(self, slot: Slot) -> ProcessProbe:
        spec, incarnation = slot.spec, slot.record.incarnation
        first = True

        def emit(event: Probed | Progressed) -> None:
            nonlocal first
            if isinstance(event, Probed) and event.ok and first:
                first = False
                self._on_ready(spec, incarnation)
            self._report(spec.name, event)

        def cpu_seconds() -> float:
            return self._running.cpu_seconds((spec.name, incarnation))

        async def answered() -> int | None:
            return await self._answered.by(spec)

        def moved_bytes() -> int:
            return self._running.moved_bytes((spec.name, incarnation)) + self._downloaded(spec)

        log: Path = self._where.log(spec.name, incarnation)
        key = key_of(self._secret, spec)
        return ProcessProbe(
            spec, incarnation, log, self._policy, emit, cpu_seconds, answered, key, moved_bytes
        )


def _settings(spec: ProcessSpec) -> _Settings:
    return spec.ready_path, spec.live_path, spec.probe_timeout_s
