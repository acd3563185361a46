"""Whether the kernel's OOM killer may have ended a process: the kernel's counts, before and after its death.

A SIGKILL does not show who sent it. The kernel counts what its OOM killer ends: for each cgroup in ``memory.events`` (version 2) or
``memory.oom_control`` (version 1, Linux 4.13 and later), and for the whole machine in ``/proc/vmstat``; see
Documentation/admin-guide/cgroup-v2.rst and ``man 5 proc_vmstat``. All of these counts may include other processes, so only
the last few seconds before a death are considered.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path, PurePath

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_FIELD = b"oom_kill"
_LOOKS = 3
LOOK_EVERY_S = 5.0
"""A process that lost one of its children may take some seconds to end, so its death is compared with the count 10 to 15 s before."""


class OomCount:
    """The OOM count for the process ``pid``: its cgroup's if that can be read, else the machine's."""

    def __init__(self, pid: int, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> None:
        self._files = [*_of_cgroup(pid, proc, cgroups), proc / "vmstat"]
        self._looks = deque([self._read()], maxlen=_LOOKS)

    def look(self) -> None:
        """Read the count; to be called every ``LOOK_EVERY_S`` seconds, so that older kills are not attributed to a later death."""
        self._looks.append(self._read())

    def rose(self) -> bool:
        """Whether the OOM killer was active lately. False, too, if unknown."""
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
    """Files that may have the count of the cgroup of ``pid``, best first. In a container its own cgroup looks like the root."""
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
        # A group without the memory controller, as ours are, is counted in the nearest one above that has it.
        found += [root / part / name for part in (PurePath(inside), *PurePath(inside).parents)]
    return list(dict.fromkeys(found))
