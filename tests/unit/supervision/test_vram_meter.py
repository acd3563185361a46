"""What a replica uses is measured while it lives, and only more than before is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from llmlaunch.hardware.types import Gpu, GpuProcess, Inventory
from llmlaunch.planning.types import ProcessSpec
from llmlaunch.supervision import vram_meter
from llmlaunch.supervision.gpu import measured_vram
from llmlaunch.supervision.running_processes import RunningProcesses
from llmlaunch.supervision.vram_meter import VramMeter


@dataclass
class Tree:
    """The one process of a replica."""

    pid: int = 7

    def pids(self) -> list[int]:
        return [self.pid]


@dataclass
class Spec:
    name: str = "worker/m"
    learning_key: str = "transformers:abc"


class Samples:
    """GPUs with what process 7 uses, one figure a sample; None: it uses no GPU."""

    def __init__(self, *used: int | None) -> None:
        self._used: Iterator[int | None] = iter(used)

    async def sample(self, fresh: bool = False) -> Inventory:
        used = next(self._used)
        processes = () if used is None else (GpuProcess(pid=7, used_bytes=used),)
        gpu = Gpu(
            uuid="GPU-0",
            index=0,
            name="H100",
            pci_bus="",
            reserved_bytes=0,
            total_bytes=80,
            used_bytes=0,
            free_bytes=80,
            processes=processes,
        )
        return Inventory(gpus=(gpu,))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    monkeypatch.setattr(vram_meter, "_LEARN_AFTER_S", (0.0, 0.0))
    monkeypatch.setattr(measured_vram, "record_measurement", lambda key, used: found.append((key, used)))
    return found


def learn(running: dict[Any, Tree], samples: Samples) -> None:
    async def main() -> None:
        meter = VramMeter(cast(RunningProcesses, running))
        meter._memory = cast(Any, samples)
        await meter.learn(cast(ProcessSpec, Spec()), 1)

    asyncio.run(main())


LIVING = {("worker/m", 1): Tree()}


def test_the_later_figure_is_recorded_where_it_is_larger(recorded: list[tuple[str, int]]) -> None:
    learn(LIVING, Samples(10, 12))

    assert recorded == [("transformers:abc", 10), ("transformers:abc", 12)]


def test_a_smaller_figure_later_changes_nothing(recorded: list[tuple[str, int]]) -> None:
    learn(LIVING, Samples(10, 8))

    assert recorded == [("transformers:abc", 10)]


def test_nothing_is_recorded_of_a_replica_that_uses_no_gpu(recorded: list[tuple[str, int]]) -> None:
    learn(LIVING, Samples(None, None))

    assert recorded == []


def test_nothing_is_recorded_of_a_replica_that_has_ended(recorded: list[tuple[str, int]]) -> None:
    learn({("worker/m", 2): Tree()}, Samples())

    assert recorded == []
