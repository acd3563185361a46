"""A Jetson without NVML."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmlaunch.hardware import tegra
from llmlaunch.hardware.memory import MainMemory
from llmlaunch.hardware.types import MemoryKind

MAIN = MainMemory(total=30, limit=20, available=15)
ORIN = "nvidia,p3737-0000+p3701-0004\0nvidia,tegra234\0"


def machine(folder: Path, compatible: str, device: str) -> Path:
    for name, text in (("proc/device-tree/compatible", compatible), (device, "")):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.mark.parametrize("device", ["dev/nvhost-gpu", "dev/nvgpu/igpu0/power"])
def test_its_gpu_has_main_memory(tmp_path: Path, device: str) -> None:
    gpu = tegra.gpu(MAIN, machine(tmp_path, ORIN, device))
    assert gpu is not None
    assert (gpu.name, gpu.compute_capability, gpu.memory) == ("Orin", (8, 7), MemoryKind.MAIN)
    assert (gpu.total_bytes, gpu.reserved_bytes, gpu.used_bytes, gpu.free_bytes) == (30, 10, 5, 15)


def test_other_machines_and_containers_without_the_gpu(tmp_path: Path) -> None:
    assert tegra.gpu(MAIN, tmp_path / "a PC") is None
    assert tegra.gpu(MAIN, machine(tmp_path / "pi", "raspberrypi,5-model-b\0", "dev/nvhost-gpu")) is None
    assert tegra.gpu(MAIN, machine(tmp_path / "container", ORIN, "dev/null")) is None
