"""What an inventory says to the supervisor."""

from __future__ import annotations

from dataclasses import replace

from llmlaunch.hardware.simulated import parse
from llmlaunch.hardware.types import Inventory, MemoryKind
from llmlaunch.supervision.gpu.gpu_memory import free_bytes


def test_nothing_waits_for_memory_that_nobody_knows() -> None:
    sound, lost, untold = parse("3xL4").gpus
    inventory = Inventory(
        gpus=(sound, replace(lost, lost="GPU is lost"), replace(untold, memory=MemoryKind.UNKNOWN))
    )
    assert free_bytes(inventory) == {sound.uuid: sound.free_bytes, lost.uuid: 0}
