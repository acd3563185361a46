"""The cores that this process may compute on, and how busy they are."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from llmlaunch.common.cpu_threads import CpuTime, cgroup_quota, cores_for_threads, idle_s
from llmlaunch.hardware.control_groups import PROC, ROOT, control_groups

_TICKS = os.sysconf("SC_CLK_TCK")


def usable_cores(proc: Path = PROC, cgroups: Path = ROOT) -> int:
    """Number of physical cores available to this process by CPU affinity and the quotas of its control groups."""
    allowed = len(os.sched_getaffinity(0))
    return cores_for_threads(
        allowed, psutil.cpu_count(logical=False), psutil.cpu_count(), _quotas(proc, cgroups)
    )


def measure() -> CpuTime:
    """Measure now. Raises OSError if there is no /proc/stat."""
    stat = Path("/proc/stat").read_text()
    return CpuTime(time.monotonic(), time.process_time(), idle_s(stat, os.sched_getaffinity(0), _TICKS))


def _quotas(proc: Path, cgroups: Path) -> Iterator[float]:
    """Of this process's group and of every one around it, of both versions."""
    for group in control_groups("cpu", proc, cgroups):
        yield from _quota(group / "cpu.max")
        yield from _quota(group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us")


def _quota(*files: Path) -> Iterator[float]:
    try:
        found = cgroup_quota(" ".join(file.read_text().strip() for file in files))
    except OSError:
        return
    if found is not None:
        yield found
