"""How much main memory this machine, or the container, has, and how much of it is free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llmlaunch.hardware.control_groups import PROC, ROOT, control_groups

_KIB = 1024


@dataclass(frozen=True, slots=True)
class MainMemory:
    """Sizes in bytes."""

    total: int
    """Of the machine."""
    limit: int
    """What this process and its children can have of it: all, or what their control groups allow."""
    available: int
    """How much of :attr:`limit` can be taken now without swapping."""


def main_memory(proc: Path = PROC, cgroups: Path = ROOT) -> MainMemory:
    """MemTotal and MemAvailable (proc(5)), and the limits of the control groups that this process is in.

    Files of control groups: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    machine = _pairs(proc / "meminfo", _KIB)
    total = machine.get("MemTotal", 0)
    available = machine.get("MemAvailable", machine.get("MemFree", 0) + machine.get("Cached", 0))
    limit = total
    for group in control_groups("memory", proc, cgroups):
        most = _first(group / "memory.max", group / "memory.limit_in_bytes")
        if most is None or most >= total:
            continue
        limit = min(limit, most)
        used = _first(group / "memory.current", group / "memory.usage_in_bytes") or 0
        available = min(available, max(0, most - used + _cached(group / "memory.stat")))
    return MainMemory(total, limit, min(available, limit))


def _first(*files: Path) -> int | None:
    """The number in the first of ``files`` that can be read; None: there is none, or no limit ("max")."""
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def _cached(stat: Path) -> int:
    """Pages of files that a control group is charged for and would give up."""
    counts = _pairs(stat, 1)
    names = ("inactive_file", "active_file")
    return sum(counts.get(f"total_{name}", counts.get(name, 0)) for name in names)


def _pairs(file: Path, unit: int) -> dict[str, int]:
    """``Name: 12 kB`` and ``name 12`` by name, in bytes; empty if the file cannot be read."""
    try:
        words = [line.replace(":", " ").split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) * unit for row in words if len(row) > 1 and row[1].isdigit()}
