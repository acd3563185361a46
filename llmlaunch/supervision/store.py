"""What the supervisor keeps on disk: a lock, a socket, a small state file, and measured VRAM.

The state file exists for one purpose: the next supervisor can end what a killed one left. It names processes by pid and
start time, and holds no secret.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmlaunch import paths
from llmlaunch.common import files
from llmlaunch.errors import ControlError
from llmlaunch.supervision.processes import cgroups, procs
from llmlaunch.supervision.processes.procs import ProcessId

RUN_VARIABLE = "LLMLAUNCH_RUN"
"""In the environment of every process: which run of which supervisor started it."""
STATE_VARIABLE = "LLMLAUNCH_STATE_FILE"
"""Tells a shim where its supervisor notes what it runs. Programs do not get it."""
_CLEAN_S = 15.0
_LOCK_S = 3.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """One live process tree: the program, the shim that keeps it, and what was last seen below them."""

    component: str
    incarnation: int
    shim: ProcessId
    program: ProcessId | None
    descendants: tuple[ProcessId, ...] = ()
    cgroup: str = ""
    """The control group of the program, if it has one of its own (``cgroups``)."""


@dataclass(frozen=True, slots=True)
class State:
    run: str
    """Random for each start of a supervisor, and found again in its processes' environments."""
    supervisor: ProcessId
    processes: tuple[Kept, ...] = ()
    boot: str = ""
    """Of which start of the machine: pids and start times mean nothing after another."""
    left: tuple[ProcessId, ...] = ()
    """What not even SIGKILL has ended so far."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a supervisor had left: processes that were ended, and those that not even SIGKILL ends."""

    ended: int = 0
    left: tuple[ProcessId, ...] = ()


class Taken(ControlError):
    """Another supervisor is in charge of this deployment."""

    code = "already_running"


def take_lock(where: paths.DeploymentPaths) -> int:
    """Become the deployment's only supervisor, for as long as the returned descriptor is open. Raises Taken."""
    paths.private_dir(where.state)
    lock = files.open_kept(where.lock, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Taken(f"another supervisor runs {where.name!r} already") from None
    return lock


def bind_socket(where: paths.DeploymentPaths) -> socket.socket:
    """The listening control socket, for this user alone. Only the holder of the lock may call this."""
    files.remove(where.socket)
    folder = os.open(where.run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            # Through the folder's descriptor: the path itself may be longer than the 107 bytes of a unix address.
            sock.bind(f"/proc/self/fd/{folder}/{where.socket.name}")
        finally:
            os.umask(before)
    finally:
        os.close(folder)
    sock.listen(64)
    sock.setblocking(False)
    return sock


Identity = tuple[int, int, int]
"""Device, inode and time of the last change: a new file may get the inode of the one before."""


def identity(path: Path) -> Identity | None:
    """What lies at ``path`` now, links not followed; None when nothing can be seen there."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def write_state(where: paths.DeploymentPaths, state: State) -> None:
    paths.private_dir(where.state)
    files.write(where.state_file, json.dumps(asdict(state), indent=1))


def read_state(where: paths.DeploymentPaths) -> State | None:
    """What a supervisor wrote last; None when there is nothing, or nothing that makes sense, which is set aside.

    Raises UsageError when the folder is another user's.
    """
    paths.refuse_foreign(where.state)
    return files.load(where.state_file, _state)


def _state(data: dict[str, Any]) -> State:
    kept = tuple(_kept(item) for item in data["processes"])
    supervisor, boot = _process(data["supervisor"]), str(data.get("boot", ""))
    return State(str(data["run"]), supervisor, kept, boot, _processes(data.get("left", ())))


def _kept(data: dict[str, Any]) -> Kept:
    program = data["program"]
    return Kept(
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


def clean_after_crash(where: paths.DeploymentPaths) -> Swept:
    """End what a killed supervisor left, and forget it. Only the holder of the lock may call this. Blocks for seconds.

    Environments find what the state file does not name, and the state file names what wiped its environment.
    """
    state = read_state(where)
    swept = Swept() if state is None else _sweep(state)
    if not swept.left:
        files.remove(where.state_file)
    return swept


def supervisor_of(where: paths.DeploymentPaths) -> ProcessId | None:
    """The live process that the state file names as the supervisor, if it is one: pid, start time and command line say so."""
    state = read_state(where)
    if state is None or state.boot not in ("", procs.boot_id()) or not state.supervisor.alive:
        return None
    words = procs.command(state.supervisor.pid)
    ours = "llmlaunch.supervision" in words and where.name in words
    return state.supervisor if ours else None


def _sweep(state: State) -> Swept:
    named: set[ProcessId] = set()
    groups: list[str] = []
    if state.boot in ("", procs.boot_id()):
        named.update(state.left)
        for kept in state.processes:
            named |= {p for p in (kept.program, kept.shim, *kept.descendants) if p}
        groups = [kept.cgroup for kept in state.processes]
    seen: set[ProcessId] = set()

    def alive() -> list[int]:
        ours = procs.with_environment({RUN_VARIABLE: state.run}) if state.run else []
        # A pid and a start time may be of a file that was copied here; an environment tells whose process it is.
        roots = [p.pid for p in named if p.alive and not procs.is_another(p.pid, RUN_VARIABLE, state.run)]
        below = [p.pid for family in procs.families(roots).values() for p in family]
        grouped = [pid for group in groups for pid in cgroups.pids(group)]
        found = {*roots, *below, *ours, *grouped} - {os.getpid()}
        seen.update(p for pid in found if (p := procs.identify(pid)))
        return list(found)

    if found := alive():
        for group in groups:
            cgroups.kill(group)
        log.warning("ending %d processes that an earlier supervisor left", len(found))
        if left := procs.kill_until_gone(alive, _CLEAN_S):
            log.error("these cannot be ended: %s", left)
    for group in groups:
        cgroups.remove(group)
    remaining = tuple(sorted((p for p in seen if p.alive), key=lambda p: p.pid))
    return Swept(len(seen) - len(remaining), remaining)


def sweep(where: paths.DeploymentPaths) -> Swept:
    """End what a supervisor that is gone has left. Nothing happens while one is in charge. Blocks for seconds."""
    end = time.monotonic() + _LOCK_S
    while (state := read_state(where)) is not None:
        if state.supervisor.alive:  # perhaps without its lock: somebody may have removed the file
            return Swept()
        try:
            lock = take_lock(where)
        except Taken:
            # A dead process keeps its lock until the last of its threads is gone. Else it is the next supervisor's.
            if time.monotonic() > end:
                return Swept()
            time.sleep(0.02)
            continue
        try:
            return clean_after_crash(where)
        finally:
            os.close(lock)
    return Swept()


# ── measured VRAM ───────────────────────────────────────────────────────────────────────────────────────────────────


def learned_file() -> Path:
    return paths.state_root() / "learned.json"


def load_learned() -> dict[str, int]:
    """Measured bytes per replica by ``planning.estimate.learning_key``; empty when nothing was measured yet."""
    return files.load(learned_file(), _learned) or {}


def _learned(data: dict[str, Any]) -> dict[str, int]:
    return {k: v for k, v in data.items() if isinstance(v, int) and not isinstance(v, bool) and v > 0}


def remember_vram(key: str, used_bytes: int) -> None:
    """Note what a replica was seen to use. Safe against other supervisors that do the same."""
    with _learning():
        learned = load_learned() | {key: used_bytes}
        files.write(learned_file(), json.dumps(learned, indent=1, sort_keys=True))


@contextlib.contextmanager
def _learning() -> Iterator[None]:
    paths.private_dir(paths.state_root())
    lock = files.open_kept(learned_file().with_suffix(".lock"), os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
