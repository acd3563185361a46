"""Which process runs a deployment, when its socket does not say: read from its state file and /proc.

A socket may be deleted or replaced while its supervisor lives on. The supervisor is then known by its pid and its start time, and by
the name that its command line bears.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from llmlaunch import paths
from llmlaunch.common import files
from llmlaunch.common.process_identity import ProcessId, boot_id
from llmlaunch.control.state_file import read_state
from llmlaunch.errors import ControlError, NotRunningError

MODULE = "llmlaunch.supervision"
"""``python -m`` this is a supervisor."""


class ForeignError(NotRunningError):
    """There is such a deployment, and it belongs to another user."""

    code = "foreign"
    exit_code = 1


class UnreachableError(ControlError):
    """The supervisor lives, and its control socket does not lead to it. ``pid`` can be sent signals."""

    code = "unreachable"

    def __init__(self, message: str, *, pid: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


def foreign_error(name: str, uid: int) -> ForeignError:
    """The error that says whose deployment ``name`` is."""
    return ForeignError(
        f"deployment {name!r} belongs to {paths.describe_user(uid)}, not to {paths.describe_user(os.geteuid())}",
        hint="run llmlaunch as that user, or use another name or another LLMLAUNCH_HOME",
    )


def supervisor_of(name: str) -> ProcessId | None:
    """The supervisor that this user's state file names for ``name``, if it is alive and its command line says so, too."""
    state = read_state(paths.DeploymentPaths(name))
    if state is None or state.boot not in ("", boot_id()) or not state.supervisor.alive:
        return None
    pid = state.supervisor.pid
    return state.supervisor if _supervised_deployment(pid) == name and files.trusted(_owner(pid)) else None


def foreign_deployments(name: str | None = None) -> list[tuple[str, int]]:
    """Deployments (called ``name``) that other users' supervisors run on this machine, each with the user's id, sorted."""
    found = set()
    for pid in _pids():
        supervised = _supervised_deployment(pid)
        if supervised is not None and name in (None, supervised):
            uid = _owner(pid)
            if uid not in (-1, os.geteuid()):
                found.add((supervised, uid))
    return sorted(found)


def not_running_error(name: str) -> NotRunningError:
    """The error to raise for ``name``, of which this user has no supervisor."""
    for other, uid in foreign_deployments(name):
        return foreign_error(other, uid)
    return NotRunningError(f"deployment {name!r} is not running", hint="start it with: llmlaunch up")


def _pids() -> Iterator[int]:
    try:
        return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    except OSError:
        return iter(())


def _supervised_deployment(pid: int) -> str | None:
    """The deployment that process ``pid`` supervises; None when it is no supervisor."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    if MODULE.encode() not in words[:5] or b"--name" not in words[:-1]:
        return None
    return os.fsdecode(words[words.index(b"--name") + 1])


def _owner(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return -1
