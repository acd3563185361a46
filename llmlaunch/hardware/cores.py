"""The cores that this process may compute on, and how busy they are."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from llmlaunch.common.cpu_threads import CpuTime, cgroup_quota, cores_for_threads, idle_s

_TICKS = os.sysconf("SC_CLK_TCK")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Number of physical cores available to this process by CPU affinity and the quotas of its control groups."""
    allowed = len(os.sched_getaffinity(0))
    return cores_for_threads(allowed, psutil.cpu_count(logical=False), psutil.cpu_count(), _quotas())


def measure() -> CpuTime:
    """Measure now. Raises OSError if there is no /proc/stat."""
    stat = Path("/proc/stat").read_text()
    return CpuTime(time.monotonic(), time.process_time(), idle_s(stat, os.sched_getaffinity(0), _TICKS))


def _quotas() -> Iterator[float]:
    """Of this process's group and of every one around it (Documentation/admin-guide/cgroup-v2.rst, "cpu.max"), and of version 1."""
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:
        lines = []
    inner = next((line[3:] for line in lines if line.startswith("0::")), "/").strip("/")
    folder = _CGROUPS / inner
    for group in (folder, *folder.parents):
        if group.is_relative_to(_CGROUPS):
            yield from _quota(group / "cpu.max")
    yield from _quota(_CGROUPS / "cpu/cpu.cfs_quota_us", _CGROUPS / "cpu/cpu.cfs_period_us")


def _quota(*files: Path) -> Iterator[float]:
    try:
        found = cgroup_quota(" ".join(file.read_text().strip() for file in files))
    except OSError:
        return
    if found is not None:
        yield found
