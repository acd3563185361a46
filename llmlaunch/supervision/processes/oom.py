"""Whether the kernel killed a process for lack of memory: its own counts, before and after a death.

A SIGKILL says who did it to nobody. The kernel counts what its OOM killer ends: for each cgroup in ``memory.events`` (version 2) or
``memory.oom_control`` (version 1, Linux 4.13 and later), and for the whole machine in ``/proc/vmstat``; see
Documentation/admin-guide/cgroup-v2.rst and ``man 5 proc_vmstat``. All of them may count the death of a neighbour, so a death is
held against the last few seconds alone.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path, PurePath

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_FIELD = b"oom_kill"
_LOOKS = 3
LOOK_EVERY_S = 5.0
"""A process that lost one of its children may need some seconds to end: a death is held against the count of 10 to 15 s before."""


class OomCount:
    """The count that concerns the process ``pid``: its cgroup's if that can be read, else the machine's."""

    def __init__(self, pid: int, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> None:
        self._files = [*_of_cgroup(pid, proc, cgroups), proc / "vmstat"]
        self._looks = deque([self._read()], maxlen=_LOOKS)

    def look(self) -> None:
        """To be called every ``LOOK_EVERY_S`` seconds: what was counted some looks ago is none of the death to come."""
        self._looks.append(self._read())

    def rose(self) -> bool:
        """Whether the kernel has killed lately. False as well when nobody can tell."""
        before, now = self._looks[0], self._read()
        return before is not None and now is not None and now > before

    def _read(self) -> int | None:
        for file in self._files:
            try:
                lines = file.read_bytes().splitlines()
            except OSError:
                continue
            for line in lines:
                name, _, value = line.partition(b" ")
                if name == _FIELD and value.strip().isdigit():
                    return int(value)
        return None


def _of_cgroup(pid: int, proc: Path, cgroups: Path) -> list[Path]:
    """Where the counts of the cgroup of ``pid`` may be, best first. In a container its own cgroup looks like the root."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        inside = path.lstrip("/")
        if "memory" in controllers.split(","):
            root, name = cgroups / "memory", "memory.oom_control"
        elif number == "0":
            root, name = cgroups, "memory.events"
        else:
            continue
        # A group without the controller, as ours are, counts with the nearest one above that has it.
        found += [root / part / name for part in (PurePath(inside), *PurePath(inside).parents)]
    return list(dict.fromkeys(found))
