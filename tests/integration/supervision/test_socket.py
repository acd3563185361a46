"""A control socket as somebody else left it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmlaunch import paths
from llmlaunch.control.client import ControlClient
from llmlaunch.control.discovery import running_deployments
from llmlaunch.control.supervisor_process import UnreachableError
from tests.integration.supervision.world import World, engine, until_phase
from tests.support.waiting import wait_until


def remove(where: Path) -> None:
    where.unlink()


def remove_everything(where: Path) -> None:
    shutil.rmtree(where.parents[1])


def replace_by_a_file(where: Path) -> None:
    where.unlink()
    where.write_text("x")


def replace_by_a_folder(where: Path) -> None:
    where.unlink()
    (where / "x").mkdir(parents=True)


def replace_by_a_pipe(where: Path) -> None:
    where.unlink()
    os.mkfifo(where)


def replace_by_a_dead_socket(where: Path) -> None:
    where.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(where))


@pytest.mark.parametrize(
    "damage",
    [
        remove,
        remove_everything,
        replace_by_a_file,
        replace_by_a_folder,
        replace_by_a_pipe,
        replace_by_a_dead_socket,
    ],
)
def test_a_socket_that_was_removed_or_replaced_is_made_again(
    lab: World, damage: Callable[[Path], None]
) -> None:
    client = lab.up(engine("a"))
    until_phase(client, "a", "ready")
    where = paths.DeploymentPaths("lab").socket
    damage(where)
    assert running_deployments() == ["lab"]
    again = ControlClient.connect("lab")
    assert again.supervisor_pid == client.supervisor_pid
    assert again.status().components[0].phase == "ready"
    assert stat.S_IMODE(where.stat().st_mode) == 0o600
    again.shutdown()
    assert again.wait_gone(10)
    assert not where.exists()
    assert lab.processes() == []


def test_down_needs_no_socket(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = lab.up(engine("a"))
    until_phase(client, "a", "ready")
    run = paths.DeploymentPaths("lab").run
    shutil.rmtree(run)
    run.write_text("in the way, and nobody may remove it")
    monkeypatch.setattr("llmlaunch.control.client._REBIND_S", 0.2)
    with pytest.raises(UnreachableError, match=f"runs under supervisor {client.supervisor_pid}") as caught:
        ControlClient.connect("lab")
    assert caught.value.pid == client.supervisor_pid
    assert running_deployments() == ["lab"]
    command = [sys.executable, "-m", "llmlaunch", "down"]
    done = subprocess.run(command, cwd=lab.home, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "but its control socket is missing" in done.stdout
    assert done.stdout.endswith("lab is down\n")
    wait_until(lambda: lab.processes() == [], 5)
