"""Engines that wipe their environment, as vLLM and SGLang do, and fork: nothing of them outlives its keepers."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llmlaunch import paths
from llmlaunch.common import process_identity
from llmlaunch.common.process_identity import ProcessId
from llmlaunch.control.client import ControlClient
from llmlaunch.supervision.processes import cgroups, procs
from tests.integration.supervision.world import QUICK, World, component, engine, until_phase, world
from tests.support.deployment import Cli
from tests.support.waiting import wait_until


@pytest.fixture
def lab(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", json.dumps(QUICK))
    with world(home) as box:
        yield box


class Hidden:
    """The process that nobody finds by its environment."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "hidden.pid"
        self.seen: list[ProcessId] = []

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--wipe", "--spawn-hidden", str(self.file))

    def process(self) -> ProcessId:
        wait_until(self.file.exists, 10, "the hidden process")
        found = process_identity.identify(int(self.file.read_text()))
        assert found is not None
        self.seen.append(found)
        return found


@pytest.fixture
def hidden(home: Path) -> Iterator[Hidden]:
    made = Hidden(home)
    yield made
    for process in made.seen:
        if process.alive:
            os.kill(process.pid, signal.SIGKILL)


def shim_of(client: ControlClient, name: str) -> psutil.Process:
    shim = psutil.Process(component(client, name).pid or 0).parent()
    assert shim is not None
    return shim


def until_noted(process: ProcessId) -> None:
    state = paths.DeploymentPaths("lab").state_file
    wait_until(lambda: f'"pid": {process.pid},' in state.read_text(), 10, "it is in the state file")


def kill_together(client: ControlClient, shim: psutil.Process) -> None:
    os.kill(client.supervisor_pid, signal.SIGSTOP)
    shim.kill()
    os.kill(client.supervisor_pid, signal.SIGKILL)


def test_an_engine_without_an_environment_does_not_outlive_its_shim(lab: World, hidden: Hidden) -> None:
    client = lab.up(engine("tiny", *hidden.flags))
    until_phase(client, "tiny", "ready")
    process = hidden.process()
    engine_pid = ProcessId(component(client, "tiny").pid or 0, 0).pid
    assert procs.environment(process.pid) == {}
    assert "LLMLAUNCH_RUN" not in procs.environment(engine_pid)
    hidden.file.unlink()
    shim_of(client, "tiny").kill()
    wait_until(lambda: not process.alive, 5, "the hidden process gone")
    wait_until(lambda: component(client, "tiny").incarnation == 2, 10)
    until_phase(client, "tiny", "ready")
    second = hidden.process()
    client.shutdown()
    assert client.wait_gone(10)
    assert not second.alive


def test_down_ends_what_a_supervisor_and_its_shim_left_when_both_were_killed(
    lab: World, hidden: Hidden
) -> None:
    client = lab.up(engine("tiny", *hidden.flags))
    until_phase(client, "tiny", "ready")
    process = hidden.process()
    until_noted(process)
    kill_together(client, shim_of(client, "tiny"))
    assert client.wait_gone(5)
    survived = process.alive
    assert survived, "nobody was there to end it"
    cli = Cli(lab.home, lab.home)
    told = cli.ok("down", "--name", "lab")
    assert re.fullmatch(r"lab: ended (a process|\d processes) left behind by a killed supervisor\n", told)
    assert not process.alive
    assert "nothing to take down" in cli.ok("down", "--name", "lab")


def test_the_next_start_ends_what_a_supervisor_and_its_shim_left(lab: World, hidden: Hidden) -> None:
    client = lab.up(engine("tiny", *hidden.flags))
    until_phase(client, "tiny", "ready")
    process = hidden.process()
    until_noted(process)
    kill_together(client, shim_of(client, "tiny"))
    assert client.wait_gone(5)
    lab.supervisor()
    assert not process.alive


def test_neighbours_end_what_a_supervisor_and_a_shim_left_when_both_were_killed(
    lab: World, hidden: Hidden
) -> None:
    client = lab.up(engine("tiny", *hidden.flags), engine("other"))
    until_phase(client, "tiny", "ready")
    until_phase(client, "other", "ready")
    process = hidden.process()
    until_noted(process)
    kill_together(client, shim_of(client, "tiny"))
    wait_until(lambda: not process.alive, 5, "the hidden process gone")
    wait_until(lambda: not lab.processes(), 5, "nothing left")


def test_a_control_group_holds_what_nobody_has_noted_yet(lab: World, hidden: Hidden) -> None:
    if cgroups.own() is None:
        pytest.skip("no control groups of version 2 may be made here")
    client = lab.up(engine("tiny", *hidden.flags))
    until_phase(client, "tiny", "ready")
    process = hidden.process()
    group = Path(json.loads(paths.DeploymentPaths("lab").state_file.read_text())["processes"][0]["cgroup"])
    assert process.pid in cgroups.pids(str(group))
    kill_together(client, shim_of(client, "tiny"))
    assert client.wait_gone(5)
    lab.supervisor()
    assert not process.alive
    assert not group.exists()
    client = lab.up(engine("tiny"))
    until_phase(client, "tiny", "ready")
    again = json.loads(paths.DeploymentPaths("lab").state_file.read_text())["processes"][0]["cgroup"]
    client.shutdown()
    assert client.wait_gone(10)
    assert not Path(again).exists(), "cleaned up"
