"""What the machine has. Sizes are bytes, temperatures °C, power watts, utilisation 0–100 %."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class LinkKind(IntEnum):
    """How two GPUs reach each other; a larger number is a faster way.

    The order follows nvmlDeviceGetTopologyCommonAncestor (``nvidia-smi topo -m``: SYS, NODE, PHB, PXB, PIX),
    with NVLink above them all.
    """

    UNKNOWN = 0
    SYSTEM = 1
    NODE = 2
    HOST_BRIDGE = 3
    MULTI_SWITCH = 4
    SWITCH = 5
    BOARD = 6
    NVLINK = 7


class MemoryKind(StrEnum):
    """Which memory the figures of a GPU are about."""

    OWN = "own"
    MAIN = "main"
    """The machine's main memory: the GPU has none of its own (DGX Spark, Jetson)."""
    UNKNOWN = "unknown"
    """The driver gives no figures. The total is that of all GPUs of its name, or 0; the others are 0."""


class ComputeMode(StrEnum):
    """How many processes may compute on a GPU (nvmlComputeMode_t)."""

    DEFAULT = "default"
    EXCLUSIVE = "exclusive-process"
    """One."""
    PROHIBITED = "prohibited"
    """None."""


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process with memory on a GPU, as the driver sees it: the host's pid."""

    pid: int
    used_bytes: int | None
    """None when the driver does not tell (containers, MIG)."""
    name: str = ""
    computes: bool = True
    """False: it only draws, as an X server does."""


@dataclass(frozen=True, slots=True)
class MigDevice:
    """A MIG instance, which is planned like a GPU of its own. Sizes in bytes."""

    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    used_bytes: int
    gpu_instance: int
    compute_instance: int
    memory: MemoryKind = MemoryKind.OWN


@dataclass(frozen=True, slots=True)
class Gpu:
    """One physical GPU at the moment of the query. Utilisation in percent, temperature in °C."""

    index: int
    """NVML's index, in PCI bus order, the same that CUDA uses under CUDA_DEVICE_ORDER=PCI_BUS_ID."""
    uuid: str
    """``unknown-0`` and so on when the driver does not tell."""
    name: str
    pci_bus: str
    total_bytes: int
    reserved_bytes: int
    used_bytes: int
    free_bytes: int
    memory: MemoryKind = MemoryKind.OWN
    memory_error: str = ""
    """Why :attr:`memory` is unknown."""
    utilisation: int | None = None
    temperature: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    compute_capability: tuple[int, int] | None = None
    compute_mode: ComputeMode = ComputeMode.DEFAULT
    mig_enabled: bool = False
    mig: tuple[MigDevice, ...] = ()
    processes: tuple[GpuProcess, ...] | None = ()
    """None: the driver gives no list here."""
    lost: str = ""
    """Why the GPU cannot be used ("GPU is lost"), or empty."""


@dataclass(frozen=True, slots=True)
class Link:
    """How two GPUs are connected."""

    a: str
    """UUID."""
    b: str
    kind: LinkKind
    nvlinks: int = 0
    """The number of NVLink lanes between the two, when known."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The machine at one moment. ``gpus`` is sorted by index."""

    gpus: tuple[Gpu, ...] = ()
    links: tuple[Link, ...] = ()
    driver: str = ""
    cuda: str = ""
    note: str = ""
    """Why there is nothing, or less than all, to see, in one sentence: "no NVIDIA driver: …". Of one GPU alone speaks
    :attr:`Gpu.lost`."""
    simulated: bool = False
    visible: tuple[str, ...] | None = None
    """UUIDs (GPU and MIG) that a mask the program was started with allows; None: all."""
    mps: bool = False
    """CUDA's Multi-Process Service runs: processes share a GPU through it, also one in exclusive-process mode."""


@dataclass(frozen=True, slots=True)
class OccupiedPort:
    """A (host, port) that is taken, and by whom: "python (pid 4711)"."""

    host: str
    port: int
    holder: str
    owner: str = ""
    """``deployment/component`` of a holder that a supervisor started; empty for everybody else."""
