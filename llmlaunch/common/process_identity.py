"""Which process a pid means: pids are used again, a pid with its start time is not. Read from /proc."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GONE = (b"Z", b"X")
"""States of a process that has ended: a zombie, or one that is being removed."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A pid, and when it started (clock ticks since boot, field 22 of ``man 5 proc_pid_stat``)."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether this very process lives still; a later one with the same pid does not count."""
        return identify(self.pid) == self


def identify(pid: int) -> ProcessId | None:
    """The live process with this pid now; None when there is none, or only its zombie."""
    fields = stat_fields(pid)
    return ProcessId(pid, int(fields[19])) if fields and fields[0] not in GONE else None


def boot_id() -> str:
    """Differs from one start of the machine to the next: start times count from there. Empty when nobody tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def stat_fields(pid: int) -> list[bytes] | None:
    """The fields after the command's name, the state first and then the parent; None for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
