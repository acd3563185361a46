"""Whatever dies, and however: nothing stays behind, and the next start cleans up."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from llmlaunch import paths
from llmlaunch.control.client import ControlClient
from llmlaunch.control.discovery import running_deployments
from llmlaunch.control.supervisor_start import ensure_supervisor
from llmlaunch.errors import ControlError, NotRunningError
from llmlaunch.supervision.control_socket import take_lock
from tests.integration.supervision.world import (
    World,
    component,
    engine,
    until_dead,
    until_phase,
)
from tests.support.waiting import wait_until

HARD = ("--spawn-grandchild", "--own-session", "--ignore-term")
"""The hardest tree to take down: it ignores SIGTERM, and a part of it left the session."""


def hard_tree(lab: World) -> ControlClient:
    client = lab.up(engine("hard", *HARD, stop_grace_s=30.0))
    until_phase(client, "hard", "ready")
    wait_until(lambda: len(lab.processes("hard")) == 3, 5, "shim, engine and grandchild")
    return client


def test_sigkill_of_the_supervisor_leaves_nothing(lab: World) -> None:
    client = hard_tree(lab)
    os.kill(client.supervisor_pid, signal.SIGKILL)
    wait_until(lambda: not lab.processes(), 5, "nothing left")
    with pytest.raises(NotRunningError):
        client.status()


def test_broken_lifeline_takes_everything_down_in_order(lab: World) -> None:
    """The grace is given, as for `down`, and what does not use it is killed."""
    ours, theirs = os.pipe()
    client = lab.supervisor(lifeline_fd=ours)
    os.close(ours)
    lab.up(engine("hard", *HARD, stop_grace_s=0.5))
    until_phase(client, "hard", "ready")
    os.close(theirs)
    assert client.wait_gone(10)
    assert not lab.processes()
    assert "by force" not in paths.DeploymentPaths("lab").supervisor_log.read_text()


def test_lifeline_that_ends_after_a_shutdown_leaves_it_graceful(lab: World) -> None:
    ours, theirs = os.pipe()
    client = lab.supervisor(lifeline_fd=ours)
    os.close(ours)
    lab.up(engine("deaf", "--ignore-term", stop_grace_s=0.8))
    until_phase(client, "deaf", "ready")
    client.shutdown()
    os.close(theirs)
    began = {e.component.phase: e.at for e in client.events(timeout_s=10)}
    assert began["stopped"] - began["stopping"] > 0.7, "the grace is given"
    assert client.wait_gone(10)


def test_sigkill_of_a_shim_leaves_nothing_and_restarts(lab: World) -> None:
    client = hard_tree(lab)
    first = component(client, "hard")
    shim = psutil.Process(first.pid or 0).parent()
    assert shim is not None
    before = {p.pid for p in lab.processes("hard")}
    shim.kill()
    wait_until(lambda: component(client, "hard").incarnation == 2, 10)
    again = until_phase(client, "hard", "ready")
    assert not before & {p.pid for p in lab.processes("hard")}
    assert again.restarts == 1
    supervisor = psutil.Process(client.supervisor_pid)
    assert not [c for c in supervisor.children() if c.status() == psutil.STATUS_ZOMBIE]


def test_sigkill_of_supervisor_and_shim_is_cleaned_by_the_next_start(lab: World) -> None:
    client = hard_tree(lab)
    shim = psutil.Process(component(client, "hard").pid or 0).parent()
    assert shim is not None
    os.kill(client.supervisor_pid, signal.SIGSTOP)
    shim.kill()
    os.kill(client.supervisor_pid, signal.SIGKILL)
    until_dead(client.supervisor_pid)
    wait_until(lambda: len(lab.processes()) == 1, 5, "the grandchild alone is left")
    client = lab.supervisor()
    wait_until(lambda: len(lab.processes()) == 1, 5, "the new supervisor alone is left")
    assert lab.processes()[0].pid == client.supervisor_pid
    assert client.status().components == ()


def test_stale_socket_lock_and_state_do_not_matter(lab: World) -> None:
    where = paths.DeploymentPaths("lab")
    paths.private_dir(where.run)
    paths.private_dir(where.state)
    where.lock.write_text("")
    where.state_file.write_text("{broken")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(where.socket))
    assert running_deployments() == []
    lab.up(engine("tiny"))
    until_phase(lab.clients["lab"], "tiny", "ready")
    assert running_deployments() == ["lab"]
    assert where.socket.stat().st_mode & 0o777 == 0o600
    assert where.run.stat().st_mode & 0o777 == 0o700


def test_a_reused_pid_is_left_alone(lab: World) -> None:
    """The state file names a live process, but of another start time: it is somebody else."""
    where = paths.DeploymentPaths("lab")
    paths.private_dir(where.state)
    other = subprocess.Popen(["sleep", "60"])
    try:
        where.state_file.write_text(
            '{"run": "", "supervisor": {"pid": 1, "started": 1}, "processes": [{"component": "w", "incarnation": 1, '
            f'"shim": {{"pid": {other.pid}, "started": 12}}, "program": null}}]}}'
        )
        lab.supervisor()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_two_starts_at_once_give_one_supervisor(lab: World) -> None:
    found: list[tuple[ControlClient, bool]] = []
    threads = [threading.Thread(target=lambda: found.append(ensure_supervisor("lab"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({client.supervisor_pid for client, _ in found}) == 1
    assert [started for _, started in found].count(True) == 1


def test_a_second_supervisor_refuses_and_says_so(lab: World) -> None:
    lab.supervisor()
    command = [sys.executable, "-m", "llmlaunch.supervision", "--name", "lab"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert second.returncode == 75
    assert second.stderr.endswith("error: another supervisor already runs 'lab'\n")


def test_a_supervisor_that_is_about_to_end_is_waited_for(lab: World) -> None:
    """It has closed its socket and still holds the lock: neither a client nor a second supervisor can have it."""
    lock = take_lock(paths.DeploymentPaths("lab"))
    found: list[tuple[ControlClient, bool]] = []
    thread = threading.Thread(target=lambda: found.append(ensure_supervisor("lab")))
    thread.start()
    log = paths.DeploymentPaths("lab").supervisor_log
    wait_until(lambda: log.exists() and "another supervisor already runs" in log.read_text(), 10)
    lock.release()
    thread.join()
    assert found[0][1]


def test_a_supervisor_that_nobody_uses_ends(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", '{"unused_s": 0.2}')
    assert lab.supervisor().wait_gone(10)
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", '{"unused_s": 1.0}')
    client = lab.up(engine("tiny"))
    until_phase(client, "tiny", "ready")
    wait_until(lambda: time.time() - client.status().supervisor.started_at > 1.3, 5)
    assert component(client, "tiny").phase == "ready"


def test_a_socket_that_somebody_removes_is_made_again(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A logout takes the runtime folder; no second supervisor may start meanwhile, and this one must be found again."""
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", '{"look_for_socket_s": 0.5}')
    client = lab.up(engine("tiny"))
    pid = until_phase(client, "tiny", "ready").pid
    shutil.rmtree(paths.run_root())
    found, created = ensure_supervisor("lab")
    assert (found.supervisor_pid, created) == (client.supervisor_pid, False)
    assert component(found, "tiny").pid == pid
    assert paths.DeploymentPaths("lab").socket.stat().st_mode & 0o777 == 0o600


def test_state_that_cannot_be_kept_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMLAUNCH_HOME", "/dev/null")
    with pytest.raises(
        ControlError, match="cannot keep state and logs in /dev/null/state/lab: Not a directory"
    ):
        ensure_supervisor("lab")


def test_why_a_supervisor_did_not_start_is_told(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", '{"no_such_field": 1}')
    with pytest.raises(ControlError, match="did not start: LLMLAUNCH_SUPERVISION: expected an object"):
        ensure_supervisor("lab")


def test_two_deployments_live_side_by_side(lab: World) -> None:
    one, two = engine("tiny"), engine("tiny")
    first, second = lab.up(one, name="one"), lab.up(two, name="two")
    until_phase(first, "tiny", "ready")
    until_phase(second, "tiny", "ready")
    assert running_deployments() == ["one", "two"]
    first.shutdown()
    assert first.wait_gone(10)
    assert component(second, "tiny").phase == "ready"
    assert running_deployments() == ["two"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_signals_end_it_gracefully_with_exit_0(lab: World, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "llmlaunch.supervision", "--name", "lab"]
    daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: running_deployments() == ["lab"], 10)
    client = lab.up(engine("tiny"))
    until_phase(client, "tiny", "ready")
    daemon.send_signal(number)
    assert daemon.wait(10) == 0
    assert not lab.processes()
    assert not paths.DeploymentPaths("lab").socket.exists()
    assert not paths.DeploymentPaths("lab").state_file.exists()


def test_a_second_signal_kills(lab: World) -> None:
    client = hard_tree(lab)
    os.kill(client.supervisor_pid, signal.SIGTERM)
    wait_until(lambda: component(client, "hard").phase == "stopping", 5)
    os.kill(client.supervisor_pid, signal.SIGTERM)
    assert client.wait_gone(5), "the grace of 30 s is not waited for"
    assert not lab.processes()


def test_forced_shutdown_waits_for_no_grace(lab: World) -> None:
    client = hard_tree(lab)
    client.shutdown(force=True)
    assert client.wait_gone(5)
    assert not lab.processes()


def test_shutdown_during_a_start_leaves_nothing(lab: World) -> None:
    client = lab.up(*(engine(f"w{i}", "--ready-after", "30") for i in range(3)))
    client.shutdown()
    assert client.wait_gone(10)
    assert not lab.processes()


def test_homes_deeper_than_a_unix_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab: World
) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    monkeypatch.setenv("LLMLAUNCH_HOME", str(deep))
    client, started = ensure_supervisor("lab")
    try:
        assert started
        assert client.status().deployment == "lab"
        assert len(str(paths.DeploymentPaths("lab").socket)) > 107
    finally:
        client.shutdown(force=True)
        with contextlib.suppress(ProcessLookupError):
            until_dead(client.supervisor_pid)
