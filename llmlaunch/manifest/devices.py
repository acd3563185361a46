"""``gpus:`` as people write it: auto, cpu, indexes, UUIDs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmlaunch.manifest.types import GpuAuto, GpuCpu, GpuPinned, GpuRequest

_HEX = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_UUID = re.compile(rf"(?:GPU|MIG)-{_HEX}|MIG-GPU-{_HEX}/\d+/\d+")
EXPECTED = "auto, cpu, indexes such as 0 or [0, 1], or UUIDs such as GPU-8-4-4-4-12 hexadecimal digits"


def parse_device(value: object) -> int | str:
    """One device. Raises ValueError with what is wrong."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool):
        raise ValueError(f"gpus has {value}, which names no device")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"gpus has the index {value}; indexes count from 0")
        return value
    if isinstance(value, str):
        text = value.strip()
        if _UUID.fullmatch(text):
            return text
        if text[:4].upper() in ("GPU-", "MIG-"):
            raise ValueError(f"{text} is not a complete UUID")
        raise ValueError(f"gpus has {text!r}, which names no device")
    raise ValueError("gpus names no device")


def parse_gpus(value: object, count: int | None = None) -> GpuRequest:
    """What ``gpus`` and ``gpu_count`` ask for together. Raises ValueError with what is wrong."""
    if value is None or value == "auto":
        return GpuAuto(count)
    if value == "cpu":
        if count is not None:
            raise ValueError("gpu_count asks for GPUs, and gpus: cpu for none; drop one of them")
        return GpuCpu()
    listed: Sequence[object]
    if isinstance(value, list):
        listed = value
    elif isinstance(value, str):
        listed = value.split(",")
    else:
        listed = [value]
    if not listed:
        raise ValueError("gpus is empty; write cpu for no GPU at all")
    found = tuple(parse_device(item) for item in listed)
    for device in found:
        if found.count(device) > 1:
            raise ValueError(f"gpus names {device} twice")
    if count is not None:
        raise ValueError("gpus names the devices already; gpu_count goes with gpus: auto only")
    return GpuPinned(found)
