"""What other deployments will take of the machine soon."""

from __future__ import annotations

from llmlaunch.control.types import Deployed
from llmlaunch.hardware.types import Gpu, GpuProcess, Inventory, OccupiedPort
from llmlaunch.other_deployments import claimed_ports, promised_memory
from llmlaunch.planning.types import Component, MemoryPromise, ProcessSpec

GiB = 1 << 30


def worker(name: str, port: int, claim: int = 0) -> ProcessSpec:
    return ProcessSpec(
        name, Component.WORKER, ("serve",), {}, "127.0.0.1", port, f"http://127.0.0.1:{port}",
        gpus=("GPU-0",) if claim else (), vram_per_gpu=(claim,) if claim else (),
    )  # fmt: skip


def inventory(processes: tuple[GpuProcess, ...] | None) -> Inventory:
    return Inventory((Gpu(0, "GPU-0", "NVIDIA L4", "0", 24 * GiB, 0, 0, 24 * GiB, processes=processes),))


def test_ports_of_what_runs_or_comes() -> None:
    specs = (worker("a", 1), worker("b", 2), worker("c", 3))
    other = Deployed(specs, {"a": "pending", "b": "stopped", "c": "failed"})
    assert claimed_ports({"lab": other}) == (
        OccupiedPort("127.0.0.1", 1, "a of deployment lab", "lab/a"),
        OccupiedPort("127.0.0.1", 3, "c of deployment lab", "lab/c"),
    )


def test_memory_that_is_still_to_be_loaded() -> None:
    specs = (worker("a", 1, 5 * GiB), worker("b", 2, 3 * GiB), worker("c", 3, 2 * GiB))
    other = {"lab": Deployed(specs, {"a": "starting", "b": "ready", "c": "failed"})}
    # Nothing is on the GPU, and the driver tells so: all of what runs or comes is still to be loaded.
    assert promised_memory(other, inventory(())) == (
        MemoryPromise("GPU-0", 5 * GiB, "lab/a"),
        MemoryPromise("GPU-0", 3 * GiB, "lab/b"),
    )
    # The driver does not tell: what is ready has loaded, what is not has not.
    assert promised_memory(other, inventory(None)) == (MemoryPromise("GPU-0", 5 * GiB, "lab/a"),)
