"""What is left on each device while a plan is made, and whether something fits there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from llmlaunch.hardware.types import MemoryKind
from llmlaunch.planning.devices import Device, Survey
from llmlaunch.planning.estimate import Origin, VramNeed


class DevicePool:
    """What is left on each device while a plan is made."""

    def __init__(self, survey: Survey, note: str) -> None:
        self.survey = survey
        self.note = note
        self.left = [device.free for device in survey.devices]
        self.groups: list[Counter[int]] = [Counter() for _ in survey.devices]

    def take(self, devices: Sequence[Device], claims: Sequence[int], group: int) -> None:
        """Take ``claims`` (bytes) of ``devices`` for a replica of the model ``group``."""
        for device, claim in zip(devices, claims, strict=True):
            if device.memory is MemoryKind.MAIN:
                self.take_main_memory(claim)
            else:
                self.left[device.position] -= claim
            self.groups[device.position][group] += 1

    def take_main_memory(self, size_bytes: int) -> None:
        """Take main memory from the devices that use it: all of them have the same."""
        for device in self.survey.devices:
            if device.memory is MemoryKind.MAIN:
                self.left[device.position] -= size_bytes

    def main_memory_left(self) -> int | None:
        """Bytes of main memory beside what devices that use it are to take; None: no device does."""
        left = [self.left[d.position] for d in self.survey.devices if d.memory is MemoryKind.MAIN]
        return min(left, default=None)

    def blocked(self, device: Device) -> str:
        """Why nothing more can go on ``device``, whatever is left of its memory; empty: something can."""
        if not device.exclusive:
            return ""
        mode = f"{device.label} is in exclusive-process compute mode"
        if device.taken:
            return f"{mode}, and taken by {device.taken}; nvidia-smi -c 0 lifts that"
        if self.groups[device.position]:
            return f"{mode}, so it takes one replica; nvidia-smi -c 0 lifts that"
        return ""

    def fits(self, device: Device, need: VramNeed) -> bool:
        """Whether ``need`` fits in what is left of ``device``. What the manifest claims is believed of unknown memory."""
        if self.blocked(device):
            return False
        if device.memory is MemoryKind.UNKNOWN and not device.total:
            return need.origin in (Origin.MANIFEST, Origin.NOTHING)
        return need.per_gpu <= self.left[device.position]
