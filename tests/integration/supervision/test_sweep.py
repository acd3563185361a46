"""What the state file of a supervisor that is gone says, and who is ended for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmlaunch import paths
from llmlaunch.cli.deploy.leftovers import deployments_with_leftovers, end_leftovers
from llmlaunch.common import process_identity
from llmlaunch.common.process_identity import ProcessId
from llmlaunch.control import state_file
from llmlaunch.control.state_file import SupervisedProcess, SupervisorState
from llmlaunch.errors import ControlError
from llmlaunch.supervision import control_socket
from llmlaunch.supervision.processes import crash_recovery, procs
from llmlaunch.supervision.processes.crash_recovery import CleanupResult
from llmlaunch.supervision.processes.spawn import Shims
from tests.support.waiting import wait_until

NOBODY = ProcessId(2**22 + 1, 1)


@pytest.fixture
def stranger() -> Iterator[ProcessId]:
    """A process of somebody, without a mark."""
    child = subprocess.Popen(["sleep", "60"], env={})
    found = process_identity.identify(child.pid)
    assert found is not None
    yield found
    child.kill()
    child.wait()


@pytest.fixture
def where(home: Path) -> paths.DeploymentPaths:
    found = paths.DeploymentPaths("lab")
    paths.private_dir(found.state)
    return found


def noted(
    where: paths.DeploymentPaths, *descendants: ProcessId, boot: str | None = None, **more: Any
) -> None:
    kept = SupervisedProcess("w", 1, NOBODY, None, descendants)
    boot = process_identity.boot_id() if boot is None else boot
    state_file.write_state(where, SupervisorState("run", NOBODY, (kept,), boot, **more))


def test_what_was_below_a_program_is_ended(where: paths.DeploymentPaths, stranger: ProcessId) -> None:
    noted(where, stranger)
    assert deployments_with_leftovers() == ["lab"]
    assert end_leftovers("lab") == 1
    assert not stranger.alive
    assert deployments_with_leftovers() == []
    assert end_leftovers("lab") == 0


def test_a_pid_is_believed_only_with_its_start_time(
    where: paths.DeploymentPaths, stranger: ProcessId
) -> None:
    noted(where, ProcessId(stranger.pid, stranger.started + 1))
    assert end_leftovers("lab") == 0
    assert stranger.alive


def test_pids_of_another_boot_are_nobody(where: paths.DeploymentPaths, stranger: ProcessId) -> None:
    noted(where, stranger, boot="of yesterday")
    assert end_leftovers("lab") == 0
    assert stranger.alive


def test_nothing_is_ended_while_a_supervisor_is_in_charge(
    where: paths.DeploymentPaths, stranger: ProcessId, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(where, stranger)
    monkeypatch.setattr(crash_recovery, "_LOCK_S", 0.1)
    lock = control_socket.take_lock(where)
    assert end_leftovers("lab") == 0
    lock.release()
    me = process_identity.identify(os.getpid())
    assert me is not None
    kept = SupervisedProcess("w", 1, NOBODY, None, (stranger,))
    state_file.write_state(where, SupervisorState("run", me, (kept,), process_identity.boot_id()))
    assert end_leftovers("lab") == 0, "its lock was removed, but it lives"
    assert stranger.alive


def test_a_lock_that_a_dead_process_still_holds_is_waited_for(
    where: paths.DeploymentPaths, stranger: ProcessId
) -> None:
    noted(where, stranger)
    lock = control_socket.take_lock(where)
    threading.Timer(0.2, lock.release).start()
    assert end_leftovers("lab") == 1
    assert not stranger.alive


def test_what_cannot_be_ended_is_said_and_not_forgotten(
    where: paths.DeploymentPaths, stranger: ProcessId, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(where, left=(stranger,))
    monkeypatch.setattr(procs, "kill", lambda pids: None)
    monkeypatch.setattr(crash_recovery, "_CLEAN_S", 0.05)
    for _ in range(2):
        with pytest.raises(
            ControlError, match=rf"these processes of 'lab' cannot be killed.*: {stranger.pid}"
        ):
            end_leftovers("lab")
    assert crash_recovery.clean_after_crash(where) == CleanupResult(0, (stranger,))
    assert where.state_file.exists()


def test_children_of_somebody_else_are_no_orphans_of_ours() -> None:
    earlier = subprocess.Popen(["sleep", "60"])
    try:
        assert earlier.pid not in Shims().orphans()
    finally:
        earlier.kill()
        earlier.wait()


def test_every_child_that_is_no_shim_is_a_stray() -> None:
    """Without a look at environments, and with what is below it in a session of its own."""
    below = "import os, time; os.setsid(); time.sleep(60)"
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {below!r}], env={{}}).wait()"
    shims = Shims()
    shim = shims.start(lambda: subprocess.Popen(["sleep", "60"]))
    orphan = subprocess.Popen([sys.executable, "-c", script], env={})
    try:
        found = wait_until(lambda: len(new := shims.orphans()) == 2 and new)
        assert orphan.pid in found
        assert shim.pid not in found
        shims.discard(shim.pid)
        assert shim.pid in shims.orphans()
    finally:
        for pid in shims.orphans():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shim.wait()
        orphan.wait()
