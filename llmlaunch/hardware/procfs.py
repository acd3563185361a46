"""GPUs as the kernel module lists them, for containers that have GPUs and no NVML.

A container with ``NVIDIA_DRIVER_CAPABILITIES=compute`` gets CUDA's library without libnvidia-ml.so.1. Source of the files:
the driver's README, "the /proc interface": ``/proc/driver/nvidia/gpus/BUS/information`` has ``Model:``, ``GPU UUID:`` and so on.
"""

from __future__ import annotations

from pathlib import Path

from llmlaunch.hardware import cards
from llmlaunch.hardware.types import Gpu, MemoryKind

NOTE = (
    "NVML is missing here, so nobody knows how much memory is free; a container gets it by "
    "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
)
_GPUS = "proc/driver/nvidia/gpus"


def gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """The GPUs of this machine or container in PCI order, without figures of memory; empty if there is no driver."""
    found: list[Gpu] = []
    for file in sorted((root / _GPUS).glob("*/information")):
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        found.append(_gpu(len(found), file.parent.name, said))
    return tuple(found)


def _gpu(index: int, bus: str, said: dict[str, str]) -> Gpu:
    name = said.get("Model") or "unknown GPU"
    uuid = said.get("GPU UUID", "")
    return Gpu(
        index=index,
        uuid=uuid if uuid.startswith("GPU-") and "?" not in uuid else f"unknown-{index}",
        name=name,
        pci_bus=bus.upper(),
        total_bytes=cards.total_bytes(name),
        reserved_bytes=0,
        used_bytes=0,
        free_bytes=0,
        memory=MemoryKind.UNKNOWN,
        memory_error="NVML is missing",
        compute_capability=cards.capability(name),
        processes=None,
    )
