"""How much of a GPU's memory the components of a deployment hold, as far as the driver tells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmlaunch.hardware.process_owners import owner
from llmlaunch.hardware.types import Gpu, Inventory
from llmlaunch.planning.types import ProcessSpec

# A driver holds some of a GPU's memory for itself; more than this belongs to a process.
_IDLE_BYTES = 1 << 30


def held_by_component(
    inventory: Inventory, deployment: str, running: Sequence[ProcessSpec]
) -> dict[str, dict[str, int]]:
    """Bytes that each running component's processes hold, by component and device.

    A component appears only when that is sure on every GPU it runs on. In containers the driver's list is often missing, without
    sizes, or full of another namespace's pids; then nothing is said, and the planner goes by the claims.
    """
    wanted = {uuid for spec in running for uuid in spec.gpus}
    by_gpu = {g.uuid: sums for g in inventory.gpus if g.uuid in wanted and (sums := _by_owner(g)) is not None}
    return {
        spec.name: {uuid: by_gpu[uuid].get(f"{deployment}/{spec.name}", 0) for uuid in spec.gpus}
        for spec in running
        if spec.gpus and all(uuid in by_gpu for uuid in spec.gpus)
    }


def _by_owner(gpu: Gpu) -> dict[str, int] | None:
    """Bytes on ``gpu`` by ``deployment/component``; None when the driver's list cannot be trusted."""
    if gpu.processes is None or gpu.mig_enabled or (not gpu.processes and gpu.used_bytes > _IDLE_BYTES):
        return None
    sums: dict[str, int] = {}
    for process in gpu.processes:
        if process.used_bytes is None or not Path(f"/proc/{process.pid}").exists():
            return None
        who = owner(process.pid)
        sums[who] = sums.get(who, 0) + process.used_bytes
    return sums
