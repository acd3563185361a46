"""What the supervisor tells a real controller about workers that cannot register themselves."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from typing import Any

from llmlaunch.controller import wire
from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision import registrar
from tests.integration.supervision.world import World, component, engine, get, past_events, until_phase
from tests.support.ports import free_port
from tests.support.waiting import wait_until


def controller() -> ProcessSpec:
    port = free_port()
    argv = (sys.executable, "-m", "llmlaunch", "controller", "--host", "127.0.0.1", "--port", str(port))
    return engine(
        "controller", port=port, argv=argv, component=Component.CONTROLLER, names=(), self_registering=True
    )


def gateway() -> ProcessSpec:
    """A fake engine in the gateway's place: it tells the token that it was given."""
    return engine("gateway", component=Component.API, names=(), engine="")


class Table:
    """The controller's routes, asked with the token of a :func:`gateway`."""

    def __init__(self, spec: ProcessSpec, witness: ProcessSpec) -> None:
        self._url = spec.address + "/routes"
        self._token = get(witness, "/seen")["env"]["LLMLAUNCH_TOKEN"]

    def routes(self) -> dict[str, Any]:
        ask = urllib.request.Request(self._url, headers={"Authorization": f"Bearer {self._token}"})
        with urllib.request.urlopen(ask, timeout=5) as response:
            return dict(json.loads(response.read()))

    def names(self) -> list[str]:
        try:
            return sorted(n for r in self.routes()["replicas"] for n in r["model_names"] if not r["draining"])
        except OSError:
            return ["the controller does not answer"]


def test_the_supervisor_registers_for_engines_and_takes_the_dead_away(lab: World) -> None:
    main, witness = controller(), gateway()
    a, b = engine("a", needs=("controller",)), engine("b", needs=("controller",), names=("b", "b-alias"))
    client = lab.up(main, a, b, witness)
    until_phase(client, "a", "ready")
    pid = until_phase(client, "b", "ready").pid
    until_phase(client, "gateway", "ready")
    table = Table(main, witness)
    wait_until(lambda: table.names() == ["a", "b", "b-alias"], 10)
    assert table.routes()["expected"] == ["a", "b", "b-alias"]
    row = next(r for r in table.routes()["replicas"] if r["component"] == "b")
    assert (row["worker_name"], row["engine"]) == (b.address, "command")

    client.apply(lab.plan(main, a, replace(b, argv=("false",)), witness))
    wait_until(lambda: table.names() == ["a"], 5, "a dead worker leaves the table long before it expires")
    client.apply(lab.plan(main, a, b, witness))
    wait_until(lambda: table.names() == ["a", "b", "b-alias"], 10)
    assert component(client, "b").pid != pid

    first = component(client, "controller")
    os.kill(first.pid or 0, signal.SIGKILL)
    wait_until(lambda: component(client, "controller").incarnation == 2, 10)
    until_phase(client, "controller", "ready")
    wait_until(lambda: table.names() == ["a", "b", "b-alias"], 10, "registered again with the new controller")
    assert table.routes()["expected"] == ["a", "b", "b-alias"]
    assert component(client, "a").incarnation == 1, "nobody went down with the controller"

    client.apply(lab.plan(main, a, witness))
    wait_until(lambda: table.names() == ["a"], 10)
    assert table.routes()["expected"] == ["a"]


def test_a_stop_drains_first(lab: World) -> None:
    """The controller marks the worker as draining, and its request in flight is waited for."""
    main, witness = controller(), gateway()
    worker = engine("w", needs=("controller",), stop_grace_s=6.0)
    client = lab.up(main, worker, witness)
    until_phase(client, "w", "ready")
    until_phase(client, "gateway", "ready")
    table = Table(main, witness)
    wait_until(lambda: table.names() == ["w"], 10)
    over, reported = threading.Event(), threading.Event()

    def report() -> None:
        # A gateway that says until told otherwise that one request is in flight.
        while not over.is_set():
            body = {"gateway": "test", "in_flight": {worker.address: 1}}
            _post(main, "/gateway_report", body, table._token)
            reported.set()
            time.sleep(0.1)
        _post(main, "/gateway_report", {"gateway": "test", "in_flight": {}}, table._token)

    thread = threading.Thread(target=report)
    thread.start()
    try:
        assert reported.wait(10)
        client.command("stop", ["w"])
        wait_until(lambda: "w" not in table.names(), 5, "no new requests")
        assert component(client, "w").phase == "stopping"
        assert get(worker, "/health")["status"] == "ok", "it was not asked to end yet"
        finished_at = time.time()
    finally:
        over.set()
        thread.join()
    until_phase(client, "w", "stopped")
    stopped = next(e for e in past_events(client) if e.component.phase == "stopped")
    assert stopped.at >= finished_at, "it ended after its last request, not before"


def _post(spec: ProcessSpec, path: str, body: Any, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    ask = urllib.request.Request(spec.address + path, json.dumps(body).encode(), headers)
    urllib.request.urlopen(ask, timeout=5).close()


def test_the_registration_is_the_wires() -> None:
    """The supervisor does not import the wire's module: pydantic would double its memory."""
    body = registrar._registration(registrar._Wanted(engine("w"), os.getpid()), 4096)
    assert wire.RegisterWorker.model_validate(body).model_dump(exclude_unset=True) == body
