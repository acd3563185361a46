"""The state file of a supervisor: what it runs, so that the next one can end what a killed one left, and who it is.

It names processes by pid and start time, and holds no secret.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from llmlaunch import paths
from llmlaunch.common import files
from llmlaunch.common.process_identity import ProcessId


@dataclass(frozen=True, slots=True)
class SupervisedProcess:
    """One live process tree: the program, the shim that keeps it, and what was last seen below them."""

    component: str
    incarnation: int
    shim: ProcessId
    program: ProcessId | None
    descendants: tuple[ProcessId, ...] = ()
    cgroup: str = ""
    """The control group of the program, if it has one of its own (``cgroups``)."""


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """Who supervises a deployment, and which processes it has."""

    run: str
    """Random for each start of a supervisor, and found again in its processes' environments."""
    supervisor: ProcessId
    processes: tuple[SupervisedProcess, ...] = ()
    boot: str = ""
    """Of which start of the machine: pids and start times mean nothing after another."""
    left: tuple[ProcessId, ...] = ()
    """Processes that SIGKILL has not ended so far."""


def write_state(where: paths.DeploymentPaths, state: SupervisorState) -> None:
    """Replace the state file, atomically. Raises OSError."""
    paths.private_dir(where.state)
    files.write(where.state_file, json.dumps(asdict(state), indent=1))


def read_state(where: paths.DeploymentPaths) -> SupervisorState | None:
    """What a supervisor wrote last; None when there is nothing, or nothing that makes sense, which is set aside.

    Raises UsageError when the folder is another user's.
    """
    paths.refuse_foreign(where.state)
    return files.load(where.state_file, _state)


def _state(data: dict[str, Any]) -> SupervisorState:
    kept = tuple(_kept(item) for item in data["processes"])
    supervisor, boot = _process(data["supervisor"]), str(data.get("boot", ""))
    return SupervisorState(str(data["run"]), supervisor, kept, boot, _processes(data.get("left", ())))


def _kept(data: dict[str, Any]) -> SupervisedProcess:
    program = data["program"]
    return SupervisedProcess(
        str(data["component"]),
        int(data["incarnation"]),
        _process(data["shim"]),
        _process(program) if program else None,
        _processes(data.get("descendants", ())),
        str(data.get("cgroup", "")),
    )


def _processes(data: Any) -> tuple[ProcessId, ...]:
    return tuple(map(_process, data))


def _process(data: dict[str, Any]) -> ProcessId:
    pid, started = data["pid"], data["started"]
    if type(pid) is not int or type(started) is not int or not 0 < pid < 1 << 31:
        raise ValueError(f"{data} is not a process")
    return ProcessId(pid, started)
