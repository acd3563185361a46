"""SIGKILL of every process of a deployment, one and two at a time, in every phase: what is left, and what comes back.

The tree of a component here is the hardest one: the engine ignores SIGTERM, and its grandchild has left session and group.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from llmlaunch.control.client import ControlClient
from llmlaunch.planning.types import ProcessSpec
from tests.integration.supervision.world import (
    QUICK,
    World,
    component,
    engine,
    until_dead,
    until_phase,
    world,
)
from tests.support.waiting import wait_until

TREE = ("--spawn-grandchild", "--own-session", "--ignore-term")
PARTS = ("shim", "engine", "grandchild")
PHASES = ("starting", "ready", "stopping")
VICTIMS = [*((part,) for part in PARTS), *itertools.combinations(PARTS, 2)]
CELLS = [(phase, victims) for phase in PHASES for victims in VICTIMS]


def name_of(phase: str, victims: tuple[str, ...]) -> str:
    return "-".join((phase, *victims))


def tree(name: str, phase: str) -> ProcessSpec:
    slow = ("--ready-after", "600") if phase == "starting" else ()
    return engine(name, *TREE, *slow, stop_grace_s=600.0, start_timeout_s=600.0)


@dataclass(frozen=True)
class Tree:
    shim: psutil.Process
    engine: psutil.Process
    grandchild: psutil.Process

    def kill(self, *victims: str) -> None:
        """All of them stand still first, so that none sees another one die."""
        doomed = [getattr(self, victim) for victim in victims]
        for process in doomed:
            process.suspend()
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):  # an engine whose shim was killed a moment ago
                process.kill()

    @property
    def pids(self) -> set[int]:
        return {self.shim.pid, self.engine.pid, self.grandchild.pid}


def tree_of(lab: World, client: ControlClient, name: str) -> Tree:
    """The processes of a component whose tree is complete."""
    wait_until(lambda: component(client, name).pid, 15, f"{name} is spawned")
    processes = wait_until(
        lambda: len(found := lab.processes(name)) == 3 and found, 15, f"three processes of {name}"
    )
    engine = psutil.Process(component(client, name).pid)
    shim = engine.parent()
    assert shim is not None
    (grandchild,) = (process for process in processes if process.pid not in (shim.pid, engine.pid))
    return Tree(shim, engine, grandchild)


def into_phase(client: ControlClient, name: str, phase: str) -> None:
    if phase == "stopping":
        until_phase(client, name, "ready")
        client.command("stop", (name,))
    until_phase(client, name, phase)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A component for each cell that leaves the supervisor alive."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("kills")
        patch.setenv("LLMLAUNCH_HOME", str(home))
        patch.setenv("LLMLAUNCH_SUPERVISION", json.dumps(QUICK | {"max_failures": 10}))
        with world(home) as lab:
            lab.up(*(tree(name_of(*cell), cell[0]) for cell in CELLS))
            yield lab


@pytest.mark.parametrize(("phase", "victims"), CELLS, ids=[name_of(*cell) for cell in CELLS])
def test_what_is_killed_comes_back_whole_or_is_gone(
    matrix: World, phase: str, victims: tuple[str, ...]
) -> None:
    client, name = matrix.clients["lab"], name_of(phase, victims)
    into_phase(client, name, phase)
    before = tree_of(matrix, client, name)
    before.kill(*victims)
    if victims == ("grandchild",) or (phase, victims) == ("stopping", ("engine",)):
        # Nobody needs the grandchild to go on; and what is stopping has its grace, whatever of it has ended.
        wait_until(lambda: len(matrix.processes(name)) == 2, 5, "the others live")
        assert component(client, name).phase == phase
        assert component(client, name).incarnation == 1
    elif phase == "stopping":
        until_phase(client, name, "stopped")
        wait_until(lambda: not matrix.processes(name), 10, "nothing left")
    else:
        wait_until(lambda: component(client, name).incarnation > 1, 10, "it is started again")
        until_phase(client, name, phase)
        assert not tree_of(matrix, client, name).pids & before.pids
        assert component(client, name).incarnation == 2


@pytest.mark.parametrize(
    "also", [(), ("engine",), ("grandchild",), ("shim",)], ids=lambda also: "-".join(also) or "alone"
)
def test_a_killed_supervisor_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, also: tuple[str, ...]
) -> None:
    """In every phase at once. Where shims die with it, what they had left is ended by the next supervisor at the latest."""
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", json.dumps(QUICK))
    with world(home) as lab:
        client = lab.up(*(tree(phase, phase) for phase in PHASES))
        for phase in PHASES:
            into_phase(client, phase, phase)
        trees = [tree_of(lab, client, phase) for phase in PHASES]
        os.kill(client.supervisor_pid, signal.SIGSTOP)
        for found in trees:
            found.kill(*also)
        os.kill(client.supervisor_pid, signal.SIGKILL)
        until_dead(client.supervisor_pid)
        if "shim" not in also:
            wait_until(lambda: not lab.processes(), 10, "nothing left")
        again = lab.supervisor()
        wait_until(
            lambda: [p.pid for p in lab.processes()] == [again.supervisor_pid], 15, "the new supervisor alone"
        )
        assert again.status().components == ()
