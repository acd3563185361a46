"""A supervisor as a real process, with fake engines as its components; used by the tests beside it."""

from __future__ import annotations

import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from llmlaunch.control.client import ControlClient
from llmlaunch.control.supervisor_start import ensure_supervisor
from llmlaunch.control.types import ComponentStatus, ProgressEvent
from llmlaunch.planning.types import Component, Plan, ProcessSpec
from tests.support import groups
from tests.support.ports import free_port
from tests.support.waiting import wait_until

ENGINE = Path(__file__).parents[2] / "support" / "fake_engine.py"
QUICK = {
    "first_delay_s": 0.05,
    "max_delay_s": 0.3,
    "stable_s": 30.0,
    "max_failures": 3,
    "probe_every_s": 0.1,
    "probe_timeout_s": 0.4,
    "unhealthy_grace_s": 0.3,
    "least_term_grace_s": 0.3,
    "kill_again_s": 0.3,
    "memory_wait_s": 0.5,
}
"""A restart policy whose delays tests can wait for."""


def engine(name: str, *flags: str, port: int = 0, **changes: Any) -> ProcessSpec:
    """A worker that runs the fake engine with ``flags``."""
    port = port or free_port()
    argv = (sys.executable, "-I", "-S", str(ENGINE), "--port", str(port), "--names", name, *flags)
    spec = ProcessSpec(
        name=name,
        component=Component.WORKER,
        argv=argv,
        env={},
        host="127.0.0.1",
        port=port,
        address=f"http://127.0.0.1:{port}",
        model=f"lab/{name}",
        names=(name,),
        engine="command",
        start_timeout_s=20.0,
        stop_grace_s=2.0,
    )
    return replace(spec, **changes)


@dataclass
class World:
    """One home with its deployments. ``processes`` finds everything that belongs to it."""

    home: Path
    clients: dict[str, ControlClient] = field(default_factory=dict)

    def supervisor(self, name: str = "lab", lifeline_fd: int | None = None) -> ControlClient:
        client, _ = ensure_supervisor(name, lifeline_fd=lifeline_fd)
        self.clients[name] = client
        return client

    def up(self, *specs: ProcessSpec, name: str = "lab", **plan: Any) -> ControlClient:
        """Apply a plan of ``specs`` and return at once."""
        client = self.supervisor(name)
        client.apply(self.plan(*specs, name=name, **plan))
        return client

    def plan(self, *specs: ProcessSpec, name: str = "lab", **plan: Any) -> Plan:
        names = tuple(n for spec in specs for n in spec.names)
        return Plan(name, specs, served_names=names, workdir=str(self.home), **plan)

    def processes(self, component: str = "") -> list[psutil.Process]:
        """Live processes of this home (of one component); the test's own one is not among them."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                env = process.environ()
                mine = env.get("LLMLAUNCH_HOME") == str(self.home) and process.pid != psutil.Process().pid
                if mine and component in ("", env.get("LLMLAUNCH_COMPONENT")):
                    found.append(process)
        return found


def component(client: ControlClient, name: str) -> ComponentStatus:
    return next(c for c in client.status().components if c.name == name)


def until_phase(client: ControlClient, name: str, phase: str, deadline_s: float = 15) -> ComponentStatus:
    seen: list[ComponentStatus] = []

    def reached() -> bool:
        seen.append(component(client, name))
        return seen[-1].phase == phase

    try:
        wait_until(reached, deadline_s, f"{name} {phase}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen[-1]}") from None
    return seen[-1]


def past_events(client: ControlClient) -> list[ProgressEvent]:
    """Every change up to now."""
    newest = client.status().seq
    found: list[ProgressEvent] = []
    for event in client.events(timeout_s=10) if newest else ():
        found.append(event)
        if event.seq >= newest:
            break
    return found


def until_dead(pid: int, deadline_s: float = 10) -> None:
    wait_until(lambda: _is_dead(pid), deadline_s, f"pid {pid} gone")


def _is_dead(pid: int) -> bool:
    """Whether nothing is left but an exit code that nobody has collected.

    A zombie may still have threads that are about to end: until then its sockets take connections, and its locks are held.
    """
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


def post(spec: ProcessSpec, path: str, body: Any = None) -> None:
    """Tell a fake engine something; it may die before it answers."""
    data = json.dumps(body or {}).encode()
    with contextlib.suppress(OSError):
        urllib.request.urlopen(urllib.request.Request(spec.address + path, data), timeout=2).close()


def get(spec: ProcessSpec, path: str) -> Any:
    with urllib.request.urlopen(spec.address + path, timeout=5) as response:
        return json.loads(response.read())


@contextlib.contextmanager
def world(home: Path) -> Iterator[World]:
    box = World(home)
    try:
        yield box
    finally:
        with groups.removed(home):
            for process in box.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            wait_until(lambda: not box.processes(), 10, "every process of the test's home gone")
