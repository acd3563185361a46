"""What the supervisor reports of its components: their current status, and every change of it, numbered."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from llmlaunch import paths
from llmlaunch.control.types import (
    ApiStatus,
    ComponentStatus,
    GpuStatus,
    LastFailure,
    ProgressEvent,
    StatusReport,
    SupervisorStatus,
)
from llmlaunch.hardware.types import Gpu, Inventory, MigDevice
from llmlaunch.planning.types import Component, Plan
from llmlaunch.supervision.core.failure import signal_name
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.core.types import LIVE_PHASES, Death, Phase, Why

_KEPT_EVENTS = 2000
_FAILURES = frozenset({Phase.BACKOFF, Phase.FAILED})
_LIVES = frozenset(phase.value for phase in LIVE_PHASES)


class Journal:
    """Only the loop calls ``record``; anybody may ``follow``."""

    def __init__(self, where: paths.DeploymentPaths, last_lines: Callable[[str, int], list[str]]) -> None:
        """``last_lines`` returns the last lines of an incarnation that has ended, without reading from disk."""
        self._where = where
        self._last_lines = last_lines
        self._events: deque[ProgressEvent] = deque(maxlen=_KEPT_EVENTS)
        self._last: dict[str, ComponentStatus] = {}
        self._seq = 0
        self._more = asyncio.Event()
        self._closed = False
        # Records hold monotonic times, status shows wall-clock times; setting the clock later must not move them.
        self._epoch = time.time() - time.monotonic()

    def record(self, name: str, slot: Slot) -> None:
        """Append an event if the status of ``name`` has changed."""
        status = self.component(slot, None)
        if self._last.get(name) == status:
            return
        before = self._last.get(name)
        self._last[name] = status
        tail: list[str] = []
        # From PENDING, nothing has run: the last log is of an earlier, perhaps healthy incarnation.
        if slot.record.phase in _FAILURES and before is not None and before.phase in _LIVES:
            tail = self._last_lines(name, slot.record.incarnation)
        self._seq += 1
        self._events.append(ProgressEvent(self._seq, time.time(), status, tuple(tail)))
        self._wake()

    async def follow(self, since: int) -> AsyncIterator[ProgressEvent]:
        """Changes after number ``since``, then live until :meth:`close`."""
        while True:
            more = self._more
            for event in [e for e in self._events if e.seq > since]:
                since = event.seq
                yield event
            if self._closed and since >= self._seq:
                return
            if more is self._more:
                await more.wait()

    def close(self) -> None:
        """End every :meth:`follow` once it has delivered the last event."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()
        if self._closed:
            self._more.set()

    def component(self, slot: Slot, vram_used: int | None) -> ComponentStatus:
        """The status of one component; ``vram_used`` is in bytes, None if unknown."""
        record, spec = slot.record, slot.spec
        pending, resting = record.phase is Phase.PENDING, record.phase in _FAILURES
        return ComponentStatus(
            name=spec.name,
            component=spec.component.value,
            model=spec.model,
            names=spec.names,
            engine=spec.engine,
            phase=record.phase.value,
            pid=record.pid,
            address=spec.address,
            gpus=spec.gpus,
            vram_bytes=spec.vram_bytes,
            vram_used_bytes=vram_used,
            restarts=record.restarts,
            since=self._calendar(record.since),
            cause=(record.waiting if pending else "") or record.cause.text,
            progress=record.progress,
            incarnation=record.incarnation,
            why="" if record.cause.why is Why.NONE else record.cause.why.value,
            note=record.note if record.phase is Phase.READY else "",
            next_try=None if not resting or record.deadline is None else self._calendar(record.deadline),
            last=self._last_failure(record.last),
        )

    def _last_failure(self, last: Death | None) -> LastFailure | None:
        if last is None:
            return None
        return LastFailure(
            at=self._calendar(last.at),
            incarnation=last.incarnation,
            why=last.why.value,
            text=last.text,
            exit_code=last.code if last.code is not None and last.code >= 0 else None,
            signal=signal_name(last.code) or None,
            out_of_memory=last.out_of_memory,
            last_line=last.last_line,
        )

    def _calendar(self, monotonic: float) -> float:
        return round(monotonic + self._epoch, 3)

    def report(
        self,
        plan: Plan,
        slots: Mapping[str, Slot],
        supervisor: SupervisorStatus,
        used: Mapping[str, int | None],
        inventory: Inventory | None,
        stopping: bool,
    ) -> StatusReport:
        """The whole status. ``used`` is measured VRAM in bytes by component, ``inventory`` the GPUs now if there are any."""
        urls = [slot.spec.address for slot in slots.values() if slot.spec.component is Component.API]
        return StatusReport(
            deployment=self._where.name,
            supervisor=supervisor,
            api=ApiStatus(urls[0] if urls else ""),
            components=tuple(self.component(slot, used.get(name)) for name, slot in slots.items()),
            gpus=_gpu_rows(inventory, slots) if inventory else (),
            manifest=plan.manifest_path,
            stopping=stopping,
            note=inventory.note if inventory and not inventory.gpus else "",
            seq=self._seq,
        )


def _gpu_rows(inventory: Inventory, slots: Mapping[str, Slot]) -> tuple[GpuStatus, ...]:
    planned: dict[str, int] = {}

    def row_of(part: Gpu | MigDevice, index: int) -> GpuStatus:
        sizes = (part.total_bytes, part.used_bytes, part.free_bytes, planned.get(part.uuid, 0))
        lost = part.lost if isinstance(part, Gpu) else ""
        return GpuStatus(index, part.uuid, part.name, *sizes, lost=lost, memory=part.memory.value)

    for slot in slots.values():
        if slot.record.phase in LIVE_PHASES or slot.record.phase is Phase.PENDING:
            for uuid, claim in zip(slot.spec.gpus, slot.spec.vram_per_gpu, strict=False):
                planned[uuid] = planned.get(uuid, 0) + claim
    return tuple(
        row
        for gpu in inventory.gpus
        for row in (row_of(gpu, gpu.index), *(row_of(m, gpu.index) for m in gpu.mig))
    )
