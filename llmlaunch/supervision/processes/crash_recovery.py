"""Kills what a supervisor that died left running, by its state file and by the environments of its processes."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass

from llmlaunch import paths
from llmlaunch.common import files
from llmlaunch.common.process_identity import ProcessId, boot_id, identify
from llmlaunch.common.variables import RUN
from llmlaunch.control.state_file import SupervisorState, read_state
from llmlaunch.supervision.control_socket import AlreadyRunningError, take_lock
from llmlaunch.supervision.processes import cgroups, procs

_CLEAN_S = 15.0
_LOCK_S = 3.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CleanupResult:
    """How many processes were killed, and which could not be killed even by SIGKILL."""

    ended: int = 0
    left: tuple[ProcessId, ...] = ()


def clean_after_crash(where: paths.DeploymentPaths) -> CleanupResult:
    """Kill what a dead supervisor left, and remove its state file. Only the holder of the lock may call this. Blocks for seconds.

    Environments reveal processes that the state file does not name, and the state file names those that wiped their environment.
    """
    state = read_state(where)
    swept = CleanupResult() if state is None else _sweep(state)
    if not swept.left:
        files.remove(where.state_file)
    return swept


def _sweep(state: SupervisorState) -> CleanupResult:
    named: set[ProcessId] = set()
    groups: list[str] = []
    if state.boot in ("", boot_id()):
        named.update(state.left)
        for kept in state.processes:
            named |= {p for p in (kept.program, kept.shim, *kept.descendants) if p}
        groups = [kept.cgroup for kept in state.processes]
    seen: set[ProcessId] = set()

    def alive() -> list[int]:
        ours = procs.with_environment({RUN: state.run}) if state.run else []
        # The state file may be a copy from another machine; an environment shows whose process it is.
        roots = [p.pid for p in named if p.alive and not procs.is_another(p.pid, RUN, state.run)]
        below = [p.pid for family in procs.families(roots).values() for p in family]
        grouped = [pid for group in groups for pid in cgroups.pids(group)]
        found = {*roots, *below, *ours, *grouped} - {os.getpid()}
        seen.update(p for pid in found if (p := identify(pid)))
        return list(found)

    if found := alive():
        for group in groups:
            cgroups.kill(group)
        log.warning("killing %d processes that an earlier supervisor left behind", len(found))
        if left := procs.kill_until_gone(alive, _CLEAN_S):
            log.error("these cannot be killed: %s", left)
    for group in groups:
        cgroups.remove(group)
    remaining = tuple(sorted((p for p in seen if p.alive), key=lambda p: p.pid))
    return CleanupResult(len(seen) - len(remaining), remaining)


def clean_unless_running(where: paths.DeploymentPaths) -> CleanupResult:
    """Kill what a dead supervisor has left. Does nothing while one is running. Blocks for seconds."""
    end = time.monotonic() + _LOCK_S
    while (state := read_state(where)) is not None:
        if state.supervisor.alive:  # perhaps without its lock: the file may have been removed
            return CleanupResult()
        try:
            lock = take_lock(where)
        except AlreadyRunningError:
            # A dead process holds its lock until its last thread is gone; otherwise the next supervisor has it.
            if time.monotonic() > end:
                return CleanupResult()
            time.sleep(0.02)
            continue
        try:
            return clean_after_crash(where)
        finally:
            lock.release()
    return CleanupResult()
