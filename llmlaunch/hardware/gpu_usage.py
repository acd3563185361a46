"""How much of a GPU's memory the components of a deployment use, as far as the driver tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from llmlaunch.hardware.process_owners import owner
from llmlaunch.hardware.types import Gpu, Inventory

# A driver holds some of a GPU's memory for itself; more than this belongs to a process.
_IDLE_BYTES = 1 << 30


def vram_by_component(
    inventory: Inventory, deployment: str, running: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, int]]:
    """Bytes that the processes of each component use, by component and then by device. ``running`` has its devices' UUIDs.

    A component appears only when that is sure on every GPU it runs on. In containers the driver's list is often missing, without
    sizes, or full of another namespace's pids; then nothing is said, and the planner goes by the claims.
    """
    wanted = {uuid for uuids in running.values() for uuid in uuids}
    by_gpu = {g.uuid: sums for g in inventory.gpus if g.uuid in wanted and (sums := _by_owner(g)) is not None}
    return {
        name: {uuid: by_gpu[uuid].get(f"{deployment}/{name}", 0) for uuid in uuids}
        for name, uuids in running.items()
        if uuids and all(uuid in by_gpu for uuid in uuids)
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
