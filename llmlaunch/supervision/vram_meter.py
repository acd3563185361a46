"""How much GPU memory is free, how much each component uses, and what there is to learn from it for the next plan."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from llmlaunch.hardware.types import Inventory
from llmlaunch.planning.types import ProcessSpec
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.gpu import gpu_memory, measured_vram
from llmlaunch.supervision.running_processes import RunningProcesses

_LEARN_AFTER_S = (3.0, 60.0)
"""When a replica's VRAM is measured: once it is ready, and again when it has served."""


class VramMeter:
    """Reads NVML for the ``running`` processes, and only when it is asked."""

    def __init__(self, running: RunningProcesses) -> None:
        self._running = running
        self._memory = gpu_memory.GpuMemory()

    async def inventory(self) -> Inventory:
        """The machine's GPUs, at most half a second old."""
        return await self._memory.sample()

    async def free(self) -> dict[str, int] | None:
        """Free bytes by GPU UUID, read now; None when no driver tells."""
        inventory = await self._memory.sample(fresh=True)
        return gpu_memory.free_bytes(inventory) if inventory.gpus else None

    async def used(self, slots: Mapping[str, Slot]) -> dict[str, int | None]:
        """Bytes that NVML sees in use, by component; only those with GPUs."""
        trees = {n: self._running.get((n, s.record.incarnation)) for n, s in slots.items() if s.spec.gpus}
        live = {name: tree for name, tree in trees.items() if tree}
        if not live:
            return {}
        pids = await asyncio.to_thread(lambda: {name: tree.pids() for name, tree in live.items()})
        return gpu_memory.used_by_tree(await self._memory.sample(), pids)

    async def learn(self, spec: ProcessSpec, incarnation: int) -> None:
        """Record what a replica that has just become READY uses, now and a minute later, while it lives."""
        most, waited = 0, 0.0
        for at in _LEARN_AFTER_S:
            await asyncio.sleep(at - waited)
            waited = at
            tree = self._running.get((spec.name, incarnation))
            if tree is None:
                return
            pids = await asyncio.to_thread(tree.pids)
            used = gpu_memory.used_bytes(await self._memory.sample(fresh=True), pids)
            if used and used > most:
                most = used
                await asyncio.to_thread(measured_vram.record_measurement, spec.learning_key, used)

    def close(self) -> None:
        """Let go of NVML's thread, without waiting for a driver that may never answer."""
        self._memory.close()
