"""A supervisor that stands still: what serves goes on serving."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmlaunch.planning.types import Component, ProcessSpec
from tests.integration.supervision.test_controller import Table, gateway
from tests.integration.supervision.world import QUICK, World, engine, until_phase, world
from tests.support.deployment import Cli
from tests.support.ports import free_port
from tests.support.waiting import wait_until

QUICK_CONTROLLER = """
import sys
from llmlaunch.controller import late_workers, table
table.LEASE_S, late_workers.INTERVAL_S = 1.0, 0.2
late_workers.LateWorkerProber.__init__.__defaults__ = (0.2,)
from llmlaunch.cli import main
sys.argv = ["llmlaunch", "controller", "--port", sys.argv[1]]
main()
"""
"""A real controller whose leases are over after one second."""


@pytest.fixture
def lab(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("LLMLAUNCH_SUPERVISION", json.dumps(QUICK))
    with world(home) as box:
        yield box


def controller() -> ProcessSpec:
    port = free_port()
    argv = (sys.executable, "-c", QUICK_CONTROLLER, str(port))
    return engine(
        "controller", port=port, argv=argv, component=Component.CONTROLLER, names=(), self_registering=True
    )


def test_a_stopped_supervisor_takes_no_engine_out_of_the_table(lab: World) -> None:
    main, witness = controller(), gateway()
    a, b = engine("a", needs=("controller",)), engine("b", needs=("controller",))
    client = lab.up(main, a, b, witness)
    until_phase(client, "gateway", "ready")
    until_phase(client, "a", "ready")
    pid = until_phase(client, "b", "ready").pid or 0
    table = Table(main, witness)
    wait_until(lambda: table.names() == ["a", "b"], 10)
    os.kill(client.supervisor_pid, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        # Long before the next heartbeat, so the controller has asked both of them.
        wait_until(lambda: table.names() == ["a"], 10, "who does not answer leaves")
        asked = lab.home / "state" / "lab" / "logs" / "controller.000001.log"
        wait_until(lambda: f"{a.address} sends no heartbeats but answers" in asked.read_text(), 10)
        assert table.names() == ["a"]
    finally:
        os.kill(client.supervisor_pid, signal.SIGCONT)
    until_phase(client, "b", "ready")
    wait_until(lambda: table.names() == ["a", "b"], 10)
    with urllib.request.urlopen(a.address + "/seen", timeout=5) as answer:
        assert json.load(answer)["pid"], "a lives its first life"
    assert next(c for c in client.status().components if c.name == "a").incarnation == 1


def test_status_says_that_the_supervisor_is_stopped_and_down_force_ends_it(lab: World) -> None:
    tiny = engine("tiny", "--spawn-grandchild", "--own-session")
    client = lab.up(tiny)
    until_phase(client, "tiny", "ready")
    cli = Cli(lab.home, lab.home)
    os.kill(client.supervisor_pid, signal.SIGSTOP)
    try:
        told = cli.run("status", "--name", "lab", timeout_s=20)
        assert told.returncode == 1
        assert (
            f"does not answer: it is stopped (resume it with: kill -CONT {client.supervisor_pid})"
            in told.stderr
        )
        assert cli.run("down", "--name", "lab", timeout_s=20).returncode == 1
        with urllib.request.urlopen(tiny.address + "/health", timeout=5) as answer:
            assert answer.status == 200, "the engine is well"
        assert "killed it; lab is down" in cli.ok("down", "--name", "lab", "--force")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(client.supervisor_pid, signal.SIGCONT)
    assert not lab.processes()
