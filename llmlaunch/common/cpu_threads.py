"""How many threads to compute with, while other processes come and go on the same cores. Pure.

The threads of one matrix product wait for each other at its end. If another process occupies the core of one of them,
all wait until it is scheduled again, hundreds of times in each step; a single thread never waits. So an engine uses as
many threads as there are cores that nobody else uses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds so far: wall clock, CPU time of this process, and idle time of its cores."""

    wall: float
    own: float
    idle: float


def threads_for(before: CpuTime, now: CpuTime, most: int) -> int:
    """Threads for the cores that this process used or could have used between two measurements; at least one."""
    wall = now.wall - before.wall
    if wall <= 0:
        return most
    cores = (now.own - before.own + now.idle - before.idle) / wall
    return max(1, min(most, round(cores)))


def idle_s(stat: str, cores: Collection[int], ticks: int) -> float:
    """Seconds that ``cores`` have been idle, from the text of /proc/stat, which counts ``ticks`` a second."""
    names = {f"cpu{core}" for core in cores}
    rows = (line.split() for line in stat.splitlines())
    # idle and iowait: proc_stat(5)
    return sum(int(row[4]) + int(row[5]) for row in rows if row and row[0] in names) / ticks


def cores_for_threads(
    allowed: int, physical: int | None, logical: int | None, quotas: Iterable[float] = ()
) -> int:
    """Cores to compute on: the physical ones behind ``allowed`` of the machine's logical ones, within every quota.

    Hyper-threads share a core's vector units: more threads than physical cores only slow each other down. ``quotas`` are cores'
    worth of time; threads beyond them stand still for the rest of each period, and all others wait for them.
    """
    cores = allowed
    if physical and logical:
        cores = allowed * physical // logical
    return max(1, min([cores, *(round(quota) for quota in quotas)]))


def cgroup_quota(content: str) -> float | None:
    """Cores' worth of time from ``cpu.max`` ("200000 100000") of a control group, version 2; None: no limit."""
    most, _, period = content.strip().partition(" ")
    if not most.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(most) / int(period)
