"""GPUs that the kernel module lists."""

from __future__ import annotations

from pathlib import Path

from llmlaunch.hardware import procfs
from llmlaunch.hardware.types import MemoryKind

INFORMATION = """\
Model: \t\t {model}
IRQ:   \t\t 133
GPU UUID: \t {uuid}
Video BIOS: \t 95.04.29.00.06
Bus Type: \t PCIe
Bus Location: \t {bus}
Device Minor: \t 0
GPU Excluded:\t No
"""


def machine(folder: Path, *gpus: tuple[str, str, str]) -> Path:
    for bus, model, uuid in gpus:
        place = folder / "proc/driver/nvidia/gpus" / bus
        place.mkdir(parents=True)
        (place / "information").write_text(INFORMATION.format(bus=bus, model=model, uuid=uuid))
    return folder


def test_names_uuids_and_what_every_gpu_of_a_name_has(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        ("0000:c1:00.0", "Something New", "GPU-????????-????-????-????-????????????"),
        ("0000:41:00.0", "NVIDIA L4", "GPU-11111111-2222-3333-4444-555555555555"),
    )
    l4, new = procfs.gpus(root)
    assert (l4.index, l4.name, l4.uuid) == (0, "NVIDIA L4", "GPU-11111111-2222-3333-4444-555555555555")
    assert (l4.total_bytes, l4.compute_capability, l4.pci_bus) == (23034 << 20, (8, 9), "0000:41:00.0")
    assert (new.index, new.name, new.uuid, new.total_bytes) == (1, "Something New", "unknown-1", 0)
    assert {l4.memory, new.memory} == {MemoryKind.UNKNOWN}


def test_no_driver(tmp_path: Path) -> None:
    assert procfs.gpus(tmp_path) == ()
