"""The GPU of a Jetson whose NVML is missing: JetPack before 6 has none.

The device tree names the chip (Documentation/devicetree, "compatible"), and a device file shows that this process, or the
container that it is in, has the GPU.
"""

from __future__ import annotations

from pathlib import Path

from llmlaunch.hardware.memory import MainMemory
from llmlaunch.hardware.types import Gpu, MemoryKind

_CHIPS = {
    "nvidia,tegra210": ("Tegra X1", (5, 3)),
    "nvidia,tegra186": ("Tegra X2", (6, 2)),
    "nvidia,tegra194": ("Xavier", (7, 2)),
    "nvidia,tegra234": ("Orin", (8, 7)),
    "nvidia,tegra264": ("Thor", (11, 0)),
}
"""By the chip's name in the device tree: what CUDA calls its GPU, and its compute capability."""
_DEVICES = ("dev/nvhost-gpu", "dev/nvgpu/igpu0")


def gpu(main: MainMemory, root: Path = Path("/")) -> Gpu | None:
    """The one GPU of this Jetson, on main memory; None if this is none, or the GPU is out of reach."""
    try:
        names = (root / "proc/device-tree/compatible").read_text(errors="replace").split("\0")
    except OSError:
        return None
    chip = next((_CHIPS[name] for name in names if name in _CHIPS), None)
    if chip is None or not any((root / device).exists() for device in _DEVICES):
        return None
    return Gpu(
        index=0,
        uuid="unknown-0",
        name=chip[0],
        pci_bus="",
        total_bytes=main.total,
        reserved_bytes=main.total - main.limit,
        used_bytes=main.limit - main.available,
        free_bytes=main.available,
        memory=MemoryKind.MAIN,
        compute_capability=chip[1],
        processes=None,
    )
