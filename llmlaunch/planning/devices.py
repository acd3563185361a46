"""The devices a plan may use: which there are, how much of each is free, how they are linked, and how a mask names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmlaunch.hardware.types import (
    ComputeMode,
    Gpu,
    GpuProcess,
    Inventory,
    LinkKind,
    MemoryKind,
    MigDevice,
)
from llmlaunch.planning.formatting import listed, size
from llmlaunch.planning.types import MemoryPromise, PlanningContext, ProcessSpec

LINK_WORDS = {
    LinkKind.NVLINK: "NVLink",
    LinkKind.BOARD: "one board",
    LinkKind.SWITCH: "one PCIe switch",
    LinkKind.MULTI_SWITCH: "PCIe switches",
    LinkKind.HOST_BRIDGE: "the PCIe host bridge",
    LinkKind.NODE: "one NUMA node",
    LinkKind.SYSTEM: "the CPUs' interconnect",
}


@dataclass(frozen=True, slots=True)
class Device:
    """A whole GPU, or one MIG instance. Sizes in bytes."""

    position: int
    """In the survey, from 0."""
    uuid: str
    index: int
    """NVML's; a MIG instance has its GPU's."""
    name: str
    total: int
    free: int
    """What this deployment may use: free now, plus what its own running components hold, minus what others were promised."""
    mig: bool = False
    holders: str = ""
    """What else uses it, in words, as far as the driver tells."""
    memory: MemoryKind = MemoryKind.OWN
    """Of all devices with :attr:`MemoryKind.MAIN` ``free`` is the same memory. Unknown: ``free`` is a guess, and 0 none at all."""
    memory_error: str = ""
    """Why :attr:`memory` is unknown."""
    capability: tuple[int, int] | None = None
    """CUDA's compute capability; None: not told."""
    exclusive: bool = False
    """Only one process may compute on it."""
    taken: str = ""
    """Which process of somebody else's computes on an exclusive device, in words."""

    @property
    def label(self) -> str:
        """What messages call it: ``GPU 0``."""
        return f"{self.uuid[:12]}… on GPU {self.index}" if self.mig else f"GPU {self.index}"

    @property
    def called(self) -> str:
        """Its label with its kind: ``GPU 0 (Tesla T4)``."""
        return f"{self.label} ({self.name})"


@dataclass(frozen=True, slots=True)
class Survey:
    """The devices that a plan may use, and why it may not use the others."""

    devices: tuple[Device, ...]
    unusable: Mapping[int | str, str]
    """Index or lower-case UUID of a device that is there but cannot be used → why."""
    links: tuple[tuple[tuple[int, int], ...], ...]
    """By position: (LinkKind, NVLink lanes)."""
    notes: tuple[str, ...] = ()
    countable: bool = True
    """Whether CUDA surely counts GPUs as NVML does. A lost GPU, or one in MIG mode, may shift those after it."""
    by_name: Mapping[int | str, Device] = field(default_factory=dict)
    """By index (whole GPUs) and by lower-case UUID."""

    def find(self, device: int | str) -> Device | str:
        """The device that the manifest means, or why it cannot be used."""
        key = device.lower() if isinstance(device, str) else device
        if key in self.by_name:
            return self.by_name[key]
        if key in self.unusable:
            return self.unusable[key]
        what = f"GPU {device}" if isinstance(device, int) else device
        have = listed([f"{d.label} ({d.uuid})" for d in self.devices[:8]])
        return f"there is no {what} here; " + (f"there is {have}" if have else "there is no usable GPU")


def survey(inventory: Inventory, context: PlanningContext) -> Survey:
    """Every device of ``inventory`` that may be used, with what is free for this deployment."""
    devices: list[Device] = []
    unusable: dict[int | str, str] = {}
    for gpu in inventory.gpus:
        why = _why_not(gpu, inventory)
        if why:
            unusable[gpu.index] = unusable[gpu.uuid.lower()] = why
        else:
            devices.append(_whole(len(devices), gpu, inventory, context))
        for part in gpu.mig:
            hidden = _hidden(part.uuid, inventory)
            unfit = gpu.lost or _prohibited(gpu)
            if unfit or hidden:
                why = f"cannot be used: {unfit}" if unfit else f"is {hidden}"
                unusable[part.uuid.lower()] = f"{part.uuid} on GPU {gpu.index} {why}"
            else:
                devices.append(_slice(len(devices), gpu, part, context))
    by_name: dict[int | str, Device] = {d.uuid.lower(): d for d in devices}
    by_name |= {d.index: d for d in devices if not d.mig}
    countable = not any(gpu.lost or gpu.mig_enabled for gpu in inventory.gpus)
    return Survey(
        tuple(devices), unusable, _links(devices, inventory), _left_out(inventory), countable, by_name
    )


def _left_out(inventory: Inventory) -> tuple[str, ...]:
    """Notes on GPUs that nobody can use as they are; one for all that share a reason."""
    found: dict[str, list[Gpu]] = {}
    for gpu in inventory.gpus:
        if why := unfit(gpu):
            found.setdefault(why, []).append(gpu)
    notes = []
    for why, gpus in found.items():
        which = f"GPUs {listed([str(gpu.index) for gpu in gpus])} are"
        notes.append(
            f"{f'GPU {gpus[0].index} ({gpus[0].name}) is' if len(gpus) == 1 else which} left out: {why}"
        )
    return tuple(notes)


def unfit(gpu: Gpu) -> str:
    """Why no process can use ``gpu`` as it is, and what to do; empty if one can."""
    if gpu.lost:
        return gpu.lost
    if gpu.mig_enabled and not gpu.mig:
        return (
            "it is in MIG mode and has no instances; create some (nvidia-smi mig -cgi PROFILE -C), "
            "or end MIG mode (nvidia-smi -mig 0)"
        )
    return _prohibited(gpu)


def _prohibited(gpu: Gpu) -> str:
    if gpu.compute_mode is not ComputeMode.PROHIBITED:
        return ""
    return "it is in prohibited compute mode, so it takes no process; nvidia-smi -c 0 lifts that"


def _why_not(gpu: Gpu, inventory: Inventory) -> str:
    if why := unfit(gpu):
        return f"GPU {gpu.index} cannot be used: {why}"
    if gpu.mig_enabled:
        return f"GPU {gpu.index} is in MIG mode; name {listed([part.uuid for part in gpu.mig], 'or')}"
    hidden = _hidden(gpu.uuid, inventory)
    return f"GPU {gpu.index} is {hidden}" if hidden else ""


def _hidden(uuid: str, inventory: Inventory) -> str:
    if inventory.visible is None or uuid in inventory.visible:
        return ""
    return "hidden by the CUDA_VISIBLE_DEVICES that llmlaunch was started with"


def _whole(position: int, gpu: Gpu, inventory: Inventory, context: PlanningContext) -> Device:
    promised = [promise for promise in context.promised if promise.uuid == gpu.uuid]
    exclusive = gpu.compute_mode is ComputeMode.EXCLUSIVE and not inventory.mps
    unknown = gpu.memory is MemoryKind.UNKNOWN
    return Device(
        position,
        gpu.uuid,
        gpu.index,
        gpu.name,
        gpu.total_bytes,
        _free(
            gpu.uuid,
            gpu.total_bytes - gpu.reserved_bytes,
            gpu.total_bytes if unknown else gpu.free_bytes,
            context,
        ),
        holders=_holders(gpu.processes, promised),
        memory=gpu.memory,
        memory_error=gpu.memory_error,
        capability=gpu.compute_capability,
        exclusive=exclusive,
        taken=_stranger(gpu, promised, context) if exclusive else "",
    )


def _stranger(gpu: Gpu, promised: Sequence[MemoryPromise], context: PlanningContext) -> str:
    """Who else has, or will have, the one place on an exclusive GPU. A process there is ours if we run one there."""
    if any(gpu.uuid in spec.gpus and spec.name not in context.idle for spec in context.running):
        return ""
    computing = [process for process in gpu.processes or () if process.computes]
    return _holders(computing, promised)


def _slice(position: int, gpu: Gpu, part: MigDevice, context: PlanningContext) -> Device:
    return Device(
        position,
        part.uuid,
        gpu.index,
        part.name,
        part.total_bytes,
        _free(part.uuid, part.total_bytes, part.free_bytes, context),
        mig=True,
        memory=part.memory,
        memory_error="" if part.memory is MemoryKind.OWN else "its instance gives no figures",
        capability=gpu.compute_capability,
    )


def _free(uuid: str, most: int, free: int, context: PlanningContext) -> int:
    """Free bytes as if nothing of this deployment ran, and all others had loaded; never more than ``most``, all there is.

    What a running component holds is known when the driver tells; if not, it is what its spec claims. A replica that is still
    loading has not taken its claim yet: the bound keeps it from making memory appear.
    """
    ours = 0
    for spec in context.running:
        if uuid in spec.gpus:
            claims = dict(zip(spec.gpus, spec.vram_per_gpu, strict=False))
            ours += context.used_vram.get(spec.name, claims).get(uuid, 0)
    promised = sum(promise.size_bytes for promise in context.promised if promise.uuid == uuid)
    return max(0, min(most, free + ours) - promised)


def reserved(spec: ProcessSpec, context: PlanningContext) -> dict[str, int]:
    """Bytes by UUID that a component which keeps running keeps from others: its claim, or more if it holds more."""
    used_vram = context.used_vram.get(spec.name, {})
    return {u: max(c, used_vram.get(u, 0)) for u, c in zip(spec.gpus, spec.vram_per_gpu, strict=False)}


def _holders(processes: Sequence[GpuProcess] | None, promised: Sequence[MemoryPromise]) -> str:
    words = [f"{promise.who}, which has yet to load {size(promise.size_bytes)}" for promise in promised]
    largest = sorted(processes or (), key=lambda p: (-(p.used_bytes or 0), p.pid))
    words += [
        f"{p.name or 'a process'} (pid {p.pid})" + (f" {size(p.used_bytes)}" if p.used_bytes else "")
        for p in largest[:3]
    ]
    if len(largest) > 3:
        words.append(f"{len(largest) - 3} more")
    return listed(words)


def _links(devices: Sequence[Device], inventory: Inventory) -> tuple[tuple[tuple[int, int], ...], ...]:
    rows = [[(0, 0)] * len(devices) for _ in devices]
    at = {device.uuid: device.position for device in devices}
    for link in inventory.links:
        a, b = at.get(link.a), at.get(link.b)
        if a is not None and b is not None:
            rows[a][b] = rows[b][a] = (int(link.kind), link.nvlinks)
    return tuple(map(tuple, rows))


def mask(devices: Sequence[Device], by_index: bool) -> str:
    """CUDA_VISIBLE_DEVICES for ``devices`` in this order; "" hides every GPU.

    Absolute NVML indexes are right under any mask of our own, because the child's mask replaces ours and CUDA_DEVICE_ORDER makes
    CUDA count as NVML does (where :attr:`Survey.countable`). MIG instances have no index in CUDA: they are always named by UUID.
    GPUs whose UUID is not told, or not in CUDA's form as on a Jetson, are always named by index.
    """
    return ",".join(
        str(d.index) if not d.mig and (by_index or not d.uuid.startswith("GPU-")) else d.uuid for d in devices
    )
