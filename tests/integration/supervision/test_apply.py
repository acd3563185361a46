"""A running deployment is brought to a new plan, and refuses what makes no sense."""

from __future__ import annotations

import http.client
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.control.connection import UnixConnection
from llmlaunch.errors import ControlError
from llmlaunch.planning.types import Component, Plan, Rejection
from tests.integration.supervision.world import World, component, engine, past_events, until_phase
from tests.support.waiting import wait_until


def test_one_changed_spec_touches_that_one_alone(lab: World) -> None:
    a, b, c = engine("a"), engine("b"), engine("c")
    client = lab.up(a, b, c)
    before = {name: until_phase(client, name, "ready").pid for name in "abc"}
    changed = replace(b, argv=(*b.argv, "--chunks", "3"))
    fresh = engine("d")
    result = client.apply(lab.plan(replace(a, reason="other numbers, same process"), changed, fresh))
    assert (result.unchanged, result.restarted, result.started, result.removed) == (
        ("a",),
        ("b",),
        ("d",),
        ("c",),
    )
    until_phase(client, "d", "ready")
    wait_until(lambda: component(client, "b").incarnation == 2, 10)
    until_phase(client, "b", "ready")
    wait_until(lambda: [x.name for x in client.status().components] == ["a", "b", "d"], 10)
    causes = {(e.component.name, e.component.phase): e.component.cause for e in past_events(client)}
    assert causes["b", "stopping"] == "restarted because its plan changed"
    assert causes["c", "stopped"] == "removed from the manifest"
    assert component(client, "a").pid == before["a"]
    assert component(client, "b").restarts == 0
    assert client.specs() == (replace(a, reason="other numbers, same process"), changed, fresh)


def test_applying_the_same_plan_twice_changes_nothing(lab: World) -> None:
    a = engine("a")
    client = lab.up(a)
    pid = until_phase(client, "a", "ready").pid
    assert client.apply(lab.plan(a)).unchanged == ("a",)
    assert component(client, "a").pid == pid


def test_apply_brings_back_what_is_down_unless_told_otherwise(lab: World) -> None:
    a = engine("a")
    client = lab.up(a)
    until_phase(client, "a", "ready")
    assert client.command("stop", ["a"]) == ("a",)
    until_phase(client, "a", "stopped")
    assert client.apply(lab.plan(a), restart_down=False).unchanged == ("a",)
    assert component(client, "a").phase == "stopped"
    assert client.apply(lab.plan(a)).started == ("a",)
    until_phase(client, "a", "ready")


def test_a_port_moves_from_one_component_to_another(lab: World) -> None:
    a = engine("a", stop_grace_s=0.5)
    client = lab.up(a)
    until_phase(client, "a", "ready")
    b = engine("b", port=a.port)
    client.apply(lab.plan(b))
    assert until_phase(client, "b", "ready").restarts == 0


def test_the_gateway_stops_before_anybody_else(lab: World) -> None:
    worker = engine("worker")
    api = engine("api", "--ignore-term", component=Component.API, stop_grace_s=0.5)
    client = lab.up(worker, api)
    until_phase(client, "api", "ready")
    until_phase(client, "worker", "ready")
    seen = len(past_events(client))
    client.shutdown()
    order = [(e.component.name, e.component.phase) for e in client.events(since=seen, timeout_s=10)]
    assert order == [
        ("api", "stopping"), ("api", "stopped"), ("worker", "stopping"), ("worker", "stopped"),
    ]  # fmt: skip


def test_the_event_stream_starts_where_it_is_told_and_ends_with_the_supervisor(lab: World) -> None:
    client = lab.up(engine("a"))
    until_phase(client, "a", "ready")
    events = past_events(client)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert [e.component.phase for e in events if e.component.pid is None][:2] == ["pending", "starting"]
    stream = client.events(since=events[-1].seq)
    client.shutdown()
    assert [e.component.phase for e in stream] == ["stopping", "stopped"]


def test_unknown_components_are_named_and_nothing_is_done(lab: World) -> None:
    client = lab.up(engine("a"))
    pid = until_phase(client, "a", "ready").pid
    with pytest.raises(ControlError, match="no such component: 'b'") as error:
        client.command("stop", ["a", "b"])
    assert error.value.hint == "there are: a"
    assert component(client, "a").pid == pid


def test_plans_that_cannot_be_run_are_refused(lab: World) -> None:
    client = lab.supervisor()
    a = engine("a")
    refused = {
        "the plan is for 'other'": Plan("other", (a,)),
        "does not fit: m: too big": Plan("lab", (a,), rejections=(Rejection("m", "too big"),)),
        "2 processes of the plan are named 'a'": Plan("lab", (a, a)),
        "no command to run": Plan("lab", (replace(a, argv=()),)),
        "not a valid component name": Plan("lab", (replace(a, name="../a"),)),
    }
    for message, plan in refused.items():
        with pytest.raises(ControlError, match=message):
            client.apply(plan)
    assert client.status().components == ()


BAD_REQUESTS = [
    ("POST", "/apply", b"{", 400, "not valid JSON"),
    ("POST", "/apply", b"[]", 400, "JSON object"),
    ("POST", "/apply", b'{"plan": {"deployment": 3}}', 400, "plan lacks"),
    ("POST", "/apply", b'{"plan": null, "restart_down": true}', 400, "plan is NoneType"),
    ("POST", "/command", b'{"verb": "explode", "names": ["a"]}', 400, "unknown verb 'explode'"),
    ("POST", "/command", b'{"verb": ["stop"], "names": ["a"]}', 400, "unknown verb"),
    ("POST", "/command", b'{"verb": "stop", "names": []}', 400, "at least one"),
    ("POST", "/command", b'{"verb": "stop", "names": [1]}', 400, "at least one"),
    ("POST", "/command", b'{"verb": "stop", "names": ["a"]}', 404, "no such component: 'a'"),
    ("POST", "/shutdown", b'{"force": "yes"}', 400, "true or false"),
    ("GET", "/events?since=-1", b"", 400, "since: '-1' is not"),
    ("GET", "/nothing", b"", 404, "does not exist"),
    ("GET", "/apply", b"", 405, "does not exist"),
]


def test_bad_requests_get_an_envelope(lab: World) -> None:
    client = lab.supervisor()
    for method, path, body, status, words in BAD_REQUESTS:
        connection = UnixConnection(client.name, client.supervisor_pid)
        connection.request(method, path, body)
        response = connection.getresponse()
        error = json.loads(response.read())["error"]
        connection.close()
        assert response.status == status, (method, path, body)
        assert words in error["message"]
        assert set(error) == {"code", "message", "hint"}


def test_the_public_shape_of_status(lab: World) -> None:
    client = lab.up(engine("a"), manifest_path="/lab/deploy.yaml")
    until_phase(client, "a", "ready")
    status = client.status_json()
    assert {"deployment", "supervisor", "api", "components", "gpus"} <= status.keys()
    assert set(status["supervisor"]) == {"pid", "started_at", "version"}
    assert status["manifest"] == "/lab/deploy.yaml"
    wanted = {"name", "component", "model", "phase", "pid", "address", "gpus", "vram_bytes", "restarts", "since", "cause"}  # fmt: skip
    assert wanted <= status["components"][0].keys()


def test_while_it_stops_new_plans_are_refused(lab: World) -> None:
    client = lab.up(engine("deaf", "--ignore-term", stop_grace_s=1.0))
    until_phase(client, "deaf", "ready")
    client.shutdown()
    assert client.status().stopping
    with pytest.raises(ControlError, match="is shutting down"):
        client.apply(lab.plan(engine("b")))
    assert client.wait_gone(10)


def test_a_client_that_leaves_the_event_stream_costs_nothing(lab: World) -> None:
    client = lab.supervisor()
    client.status()  # its socket is there before its loop is
    descriptors = Path(f"/proc/{client.supervisor_pid}/fd")
    connections: list[Any] = []
    client.status()  # it listens before it has all that it needs to answer
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        connection = UnixConnection(client.name, client.supervisor_pid)
        connection.request("GET", "/events")
        assert isinstance(connection.getresponse(), http.client.HTTPResponse)
        connections.append(connection)
    for connection in connections:
        connection.close()
    connections.clear()
    wait_until(lambda: len(list(descriptors.iterdir())) <= before, 5, "descriptors closed")
