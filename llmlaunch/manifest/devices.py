"""``gpus:`` as people write it: auto, cpu, indexes, UUIDs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmlaunch.manifest.types import GpuAuto, GpuCpu, GpuPinned, GpuRequest

_HEX = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_UUID = re.compile(rf"(?:gpu|mig)-{_HEX}|mig-gpu-{_HEX}/[0-9]+/[0-9]+", re.IGNORECASE)
_LAST_INDEX = 1023
EXPECTED = "auto, cpu, an index such as 0, a UUID such as GPU-8f6e9c1e-…, or a list of these: [0, 1]"


class DeviceError(ValueError):
    """What is wrong with ``gpus``, as the rest of a sentence whose subject is the value."""

    def __init__(self, predicate: str, index: int | None = None) -> None:
        super().__init__(predicate)
        self.index = index
        """Of the device that is wrong, in a list; None for the value as a whole."""


def parse_device(value: object) -> int | str:
    """One device: NVML's index, or a UUID in NVIDIA's spelling. Raises DeviceError."""
    if isinstance(value, str):
        text = value.strip()
        if found := _uuid(text):
            return found
        if text[:4].upper() in ("GPU-", "MIG-"):
            raise DeviceError(
                "is not a complete UUID (8-4-4-4-12 hexadecimal digits; llmlaunch gpus shows them)"
            )
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            raise DeviceError("is not a valid device")
        value = int(text)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DeviceError("is not a valid device")
    if value < 0:
        raise DeviceError("is negative; indexes count from 0")
    if value > _LAST_INDEX:
        raise DeviceError("is larger than any GPU index")
    return value


def parse_gpus(value: object, count: int | None = None) -> GpuRequest:
    """What ``gpus`` and ``gpu_count`` ask for together. Raises DeviceError."""
    word = value.strip() if isinstance(value, str) else value
    if word == "auto":
        return GpuAuto(count)
    if word == "cpu":
        if count is not None:
            raise DeviceError("requests GPUs, but gpus: cpu means none; remove one of the two")
        return GpuCpu()
    found = _pinned(word)
    if count is not None:
        raise DeviceError("is only valid with gpus: auto; here gpus already names the devices")
    return GpuPinned(found)


def _pinned(value: object) -> tuple[int | str, ...]:
    listed: Sequence[object] = value if isinstance(value, list) else [value]
    if isinstance(value, str):
        listed = value.split(",")
    if not listed:
        raise DeviceError("is empty; write cpu for no GPU at all")
    found: list[int | str] = []
    for index, item in enumerate(listed):
        try:
            device = parse_device(item)
        except DeviceError as error:
            raise DeviceError(str(error), index) from None
        if device in found:
            raise DeviceError("is already in the list", index)
        found.append(device)
    return tuple(found)


def _uuid(text: str) -> str:
    """``text`` as NVML spells it, prefix in capitals and digits in small letters; empty when it is no UUID."""
    if not _UUID.fullmatch(text):
        return ""
    prefix = len("MIG-GPU-") if "/" in text else len("GPU-")
    return text[:prefix].upper() + text[prefix:].lower()
