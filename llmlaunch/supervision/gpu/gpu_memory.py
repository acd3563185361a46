"""GPU memory for the supervisor: NVML in one thread of its own, and only when a plan has GPUs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from llmlaunch.hardware.types import Gpu, Inventory, MemoryKind, MigDevice

if TYPE_CHECKING:
    from llmlaunch.hardware.inventory import Sampler

_FRESH_S = 0.5
_PATIENCE_S = 5.0
"""Seconds that the driver has to answer: a broken one may never do so."""


class GpuMemory:
    """Samples of the machine's GPUs. Imports nothing until the first one."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._sampler: Sampler | None = None
        self._last = Inventory()
        self._at = 0.0
        self._lock = asyncio.Lock()

    async def sample(self, fresh: bool = False) -> Inventory:
        """The GPUs now, or up to half a second ago unless ``fresh``."""
        async with self._lock:
            if fresh or time.monotonic() - self._at > _FRESH_S:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "nvml")
                reading = asyncio.get_running_loop().run_in_executor(self._thread, self._sample)
                try:
                    self._last = await asyncio.wait_for(reading, _PATIENCE_S)
                except TimeoutError:
                    self._last = Inventory(note=f"the NVIDIA driver did not answer within {_PATIENCE_S:g} s")
                self._at = time.monotonic()
            return self._last

    def _sample(self) -> Inventory:
        if self._sampler is None:
            from llmlaunch.hardware.inventory import Sampler

            self._sampler = Sampler()
        return self._sampler.sample()

    def close(self) -> None:
        """End the thread, without waiting for a reading that hangs."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def free_bytes(inventory: Inventory) -> dict[str, int]:
    """Free memory by UUID, MIG instances included, where it is known. A GPU that cannot be used counts as full."""
    parts: list[Gpu | MigDevice] = [*inventory.gpus]
    parts += [part for gpu in inventory.gpus for part in gpu.mig]
    free = {part.uuid: part.free_bytes for part in parts if part.memory is not MemoryKind.UNKNOWN}
    return free | {gpu.uuid: 0 for gpu in inventory.gpus if gpu.lost}


def used_bytes(inventory: Inventory, pids: Iterable[int]) -> int | None:
    """Bytes that these processes use on all GPUs together; None if the driver does not tell, or none of them uses a GPU."""
    wanted = set(pids)
    found = [p for gpu in inventory.gpus for p in gpu.processes or () if p.pid in wanted]
    if not found or any(p.used_bytes is None for p in found):
        return None
    return sum(p.used_bytes or 0 for p in found)


def used_by_tree(inventory: Inventory, trees: Mapping[str, Iterable[int]]) -> dict[str, int | None]:
    """Bytes in use by each process tree; ``trees`` has their pids."""
    return {name: used_bytes(inventory, pids) for name, pids in trees.items()}
