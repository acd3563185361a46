"""The machine's NVIDIA GPUs as an inventory, made of NVML's answers.

NVML numbers GPUs in PCI bus order and ignores device masks. What one GPU or one driver cannot tell becomes None, a GPU
that fails becomes a row that says so, and a machine without a driver becomes an empty inventory with a note: nothing
in here raises.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llmlaunch.hardware import cards, nvml, procfs, tegra
from llmlaunch.hardware.device_mask import visible
from llmlaunch.hardware.memory import MainMemory, main_memory
from llmlaunch.hardware.types import (
    ComputeMode,
    Gpu,
    GpuProcess,
    Inventory,
    Link,
    LinkKind,
    MemoryKind,
    MigDevice,
)

_UNLISTED_BYTES = 1 << 30
"""With this much in use an empty process list means that the list is not for us, as in containers. Older drivers count
their own share, up to some 750 MiB, as used."""
_LINK_KINDS = {
    0: LinkKind.BOARD,
    10: LinkKind.SWITCH,
    20: LinkKind.MULTI_SWITCH,
    30: LinkKind.HOST_BRIDGE,
    40: LinkKind.NODE,
    50: LinkKind.SYSTEM,
}
"""By nvmlGpuTopologyLevel_t."""
_COMPUTE_MODES = {1: ComputeMode.EXCLUSIVE, 2: ComputeMode.PROHIBITED, 3: ComputeMode.EXCLUSIVE}
"""By nvmlComputeMode_t; 1, one thread of one process, is of drivers before CUDA 8."""
_MPS_PIPES = "/tmp/nvidia-mps"  # noqa: S108  # where its documentation puts it
_PROBE_DEADLINE_S = 60.0
"""The first call may have to wake every GPU of a box, which takes seconds each without persistence mode."""
_lock = threading.RLock()


def probe(env: Mapping[str, str] = os.environ, patience_s: float = _PROBE_DEADLINE_S) -> Inventory:
    """Query the machine once. Never raises: ``Inventory.note`` says what is missing.

    ``env`` holds the device mask that the program was started with. A driver in trouble may never answer, and a call
    into it cannot be interrupted, not even by Ctrl-C: after ``patience_s`` seconds it is left alone in its thread.
    """
    found: list[Inventory] = []

    def look() -> None:
        with Sampler(env) as sampler:
            found.append(sampler.sample())

    looking = threading.Thread(target=look, name="nvml", daemon=True)
    looking.start()
    looking.join(patience_s)
    return found[0] if found else Inventory(note=f"the NVIDIA driver did not answer within {patience_s:g} s")


class Sampler:
    """Queries the machine repeatedly and keeps NVML initialised (a start costs tens of milliseconds).

    Links are read once per set of GPUs. When the driver goes away, the next sample starts NVML anew.
    """

    def __init__(
        self, env: Mapping[str, str] = os.environ, main: Callable[[], MainMemory] = main_memory
    ) -> None:
        self._env = dict(env)
        self._main = main
        self._started = False
        self._known_links: tuple[tuple[str, ...], tuple[Link, ...]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let NVML go. Safe to call twice; the next sample starts it again."""
        with _lock:
            if self._started:
                self._started = False
                nvml.stop()

    def sample(self) -> Inventory:
        """The machine now. Never raises."""
        with _lock:
            fresh = not self._started
            inventory, sound = self._try()
            if not sound:
                self.close()
                if not fresh:
                    inventory, sound = self._try()
                    if not sound:
                        self.close()
            return inventory

    def _try(self) -> tuple[Inventory, bool]:
        """An inventory, and whether NVML still works as it should."""
        if not self._started:
            note = nvml.start()
            if note:
                return self._without_nvml(note), False
            self._started = True
        try:
            count = nvml.gpu_count()
        except nvml.NVMLError as error:
            return Inventory(note=nvml.message(error)), False
        rows = [_row(index, self._main) for index in range(count)]
        gpus = tuple(row.gpu for row in rows)
        allowed, remark = visible(gpus, self._env)
        notes = [remark, *_remarks(gpus)]
        inventory = Inventory(
            gpus=gpus,
            links=self._links_between(rows),
            driver=nvml.driver_version(),
            cuda=nvml.cuda_version(),
            note="; ".join(note for note in notes if note),
            visible=allowed,
            mps=Path(self._env.get("CUDA_MPS_PIPE_DIRECTORY") or _MPS_PIPES, "control").exists(),
        )
        return inventory, not gpus or any(not gpu.lost for gpu in gpus)

    def _without_nvml(self, note: str) -> Inventory:
        jetson = tegra.gpu(self._main())
        gpus = (jetson,) if jetson else procfs.gpus() if note in nvml.NOT_HERE else ()
        if not gpus:
            return Inventory(note=note)
        allowed, remark = visible(gpus, self._env)
        notes = (remark, "" if jetson else procfs.NOTE)
        return Inventory(gpus=gpus, note="; ".join(filter(None, notes)), visible=allowed)

    def _links_between(self, rows: list[_Row]) -> tuple[Link, ...]:
        alive = [row for row in rows if not row.gpu.lost]
        key = tuple(row.gpu.uuid for row in alive)
        if self._known_links is None or self._known_links[0] != key:
            self._known_links = (key, _links(alive))
        return self._known_links[1]


@dataclass(frozen=True, slots=True)
class _Row:
    gpu: Gpu
    handle: Any


def _remarks(gpus: tuple[Gpu, ...]) -> list[str]:
    if not gpus:
        return ["the NVIDIA driver works but shows no GPU"]
    if any(gpu.processes is None and not gpu.lost for gpu in gpus):
        return ["the driver does not list the processes on every GPU here, as is usual in a container"]
    return []


def _row(index: int, main: Callable[[], MainMemory]) -> _Row:
    uuid, name, bus, handle = f"unknown-{index}", "", "", None
    try:
        handle = nvml.handle_by_index(index)
        uuid = nvml.uuid(handle) or uuid
        name = nvml.name(handle) or "unknown GPU"
        bus = nvml.pci_bus(handle)
        return _Row(_gpu(index, uuid, name, bus, handle, main), handle)
    except nvml.NVMLError as error:
        # Beside a GPU that is gone, only its handle can end up here: without it there is nothing to ask about.
        why = "this process has no permission to use it" if nvml.no_permission(error) else str(error)
        gone = Gpu(index, uuid, name or "unknown GPU", bus, 0, 0, 0, 0, processes=None, lost=why)
        return _Row(gone, handle)


def _gpu(index: int, uuid: str, name: str, bus: str, handle: Any, main: Callable[[], MainMemory]) -> Gpu:
    instances = nvml.mig_handles(handle)
    kind, memory, error = _memory(handle, name, instances is not None, main)
    mode = _COMPUTE_MODES.get(nvml.compute_mode(handle), ComputeMode.DEFAULT)
    return Gpu(
        index=index,
        uuid=uuid,
        name=name,
        pci_bus=bus,
        total_bytes=memory.total,
        reserved_bytes=memory.reserved,
        used_bytes=memory.used,
        free_bytes=memory.free,
        memory=kind,
        memory_error=error,
        utilisation=nvml.utilisation(handle),
        temperature=nvml.temperature(handle),
        power_watts=nvml.power_watts(handle),
        power_limit_watts=nvml.power_limit_watts(handle),
        compute_capability=nvml.compute_capability(handle) or cards.capability(name),
        compute_mode=mode,
        mig_enabled=instances is not None,
        mig=tuple(mig for item in instances or [] if (mig := _mig(item)) is not None),
        # Who uses main memory says nothing about who uses the GPU.
        processes=_processes([handle, *(instances or [])], memory.used if kind is MemoryKind.OWN else 0),
    )


def _memory(
    handle: Any, name: str, mig: bool, main: Callable[[], MainMemory]
) -> tuple[MemoryKind, nvml.Memory, str]:
    """Which memory a GPU has, its figures, and why there are none.

    A GPU that uses main memory mostly says that it does not know memory; some drivers give 0, or a part of it.
    """
    if not cards.integrated(name):
        try:
            found = nvml.memory(handle)
            why, shared = "the driver says 0", True
        except nvml.NVMLError as error:
            if nvml.gpu_gone(error):
                raise
            found, why, shared = None, str(error), nvml.not_supported(error)
        if found is not None and found.total > 0:
            return MemoryKind.OWN, found, ""
        if cards.reported_as(name) or mig or not shared:
            return MemoryKind.UNKNOWN, nvml.Memory(cards.total_bytes(name), 0, 0, 0), why
    machine = main()
    beyond = machine.total - machine.limit
    return (
        MemoryKind.MAIN,
        nvml.Memory(machine.total, beyond, machine.limit - machine.available, machine.available),
        "",
    )


def _mig(handle: Any) -> MigDevice | None:
    uuid, memory = nvml.uuid(handle), nvml.mig_memory(handle)
    if uuid is None:
        return None
    kind = MemoryKind.OWN if memory else MemoryKind.UNKNOWN
    memory = memory or nvml.Memory(0, 0, 0, 0)
    name = nvml.name(handle) or "MIG device"
    gpu_instance, compute_instance = nvml.mig_place(handle)
    return MigDevice(
        uuid=uuid,
        name=name,
        total_bytes=memory.total,
        free_bytes=memory.free,
        used_bytes=memory.used,
        gpu_instance=gpu_instance,
        compute_instance=compute_instance,
        memory=kind,
    )


def _processes(handles: list[Any], used: int) -> tuple[GpuProcess, ...] | None:
    lists = [
        (rows, computes)
        for handle in handles
        for rows, computes in zip(nvml.running_processes(handle), (True, False), strict=True)
        if rows is not None
    ]
    if not lists:
        return None
    found: dict[int, int | None] = {}
    computing: set[int] = set()
    for rows, computes in lists:
        for pid, value in rows:
            known = found.get(pid)
            # A process that computes and draws, or holds several instances, stands in several lists.
            found[pid] = known if value is None else max(value, known or 0)
            if computes:
                computing.add(pid)
    if not found and used >= _UNLISTED_BYTES:
        return None
    return tuple(
        GpuProcess(pid, found[pid], _process_name(pid), computes=pid in computing) for pid in sorted(found)
    )


def _process_name(pid: int) -> str:
    """Empty when the pid is not visible here: another user's, or of another pid namespace."""
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except (psutil.Error, ValueError):
        return ""


def _links(rows: list[_Row]) -> tuple[Link, ...]:
    lanes = [nvml.nvlink_lanes(row.handle) for row in rows]
    buses = {row.gpu.pci_bus.lower() for row in rows}
    return tuple(
        _link(a, b, lanes[i], lanes[j], buses)
        for i, a in enumerate(rows)
        for j, b in enumerate(rows[i + 1 :], start=i + 1)
    )


def _link(a: _Row, b: _Row, lanes_a: Counter[str], lanes_b: Counter[str], buses: set[str]) -> Link:
    direct = lanes_a[b.gpu.pci_bus.lower()]
    if direct:
        return Link(a.gpu.uuid, b.gpu.uuid, LinkKind.NVLINK, direct)
    if nvml.nvlink_between(a.handle, b.handle):
        to_switch = [sum(n for bus, n in lanes.items() if bus not in buses) for lanes in (lanes_a, lanes_b)]
        return Link(a.gpu.uuid, b.gpu.uuid, LinkKind.NVLINK, min(to_switch))
    level = nvml.common_ancestor(a.handle, b.handle)
    return Link(
        a.gpu.uuid,
        b.gpu.uuid,
        LinkKind.UNKNOWN if level is None else _LINK_KINDS.get(level, LinkKind.UNKNOWN),
    )
