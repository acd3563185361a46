from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.controller import wire
from llmlaunch.gateway.routing.route_table import FASTCHAT, RouteTable, address, merge, parse


def table(*replicas: dict[str, Any], **more: Any) -> RouteTable:
    answer = {
        "epoch": "a", "rev": 1, "settled": True, "dispatch": "lottery", "replicas": list(replicas), "expected": [], **more,
    }  # fmt: skip
    parsed, complaints = parse(answer)
    assert complaints == []
    return parsed


def row(port: int, *names: str, **more: Any) -> dict[str, Any]:
    return {"worker_name": f"http://127.0.0.1:{port}", "model_names": list(names), **more}


def keys(routes: RouteTable) -> set[str]:
    return {key.rpartition(":")[2] for key in routes.replicas}


def test_what_the_controllers_own_models_write_is_read_whole() -> None:
    replica = wire.ReplicaRoute(
        worker_name="http://[::1]:8001/base", model_names=["m", "n"], speed=2.5, queue_length=3, draining=True,
        component="m-1", engine="vllm", engine_model="x", kind="embed", max_concurrency=4,
        request_timeout_s=90.0, max_model_len=4096,
    )  # fmt: skip
    routes = wire.RoutesResponse(
        epoch="e", rev=7, settled=False, dispatch="lottery", replicas=[replica], expected=["m"]
    )
    parsed, complaints = parse(routes.model_dump(mode="json"))
    assert complaints == []
    assert (parsed.epoch, parsed.rev, parsed.settled, parsed.dispatch) == ("e", 7, False, "lottery")
    assert parsed.expected == {"m"}
    (found,) = parsed.replicas.values()
    assert (found.host, found.port, found.prefix, found.names) == ("::1", 8001, b"/base", ("m", "n"))
    assert (found.speed, found.queue_length, found.draining) == (2.5, 3, True)
    assert (found.engine_model, found.max_concurrency, found.engine) == ("x", 4, "vllm")
    assert (found.request_timeout_s, found.max_model_len, found.kind) == (90.0, 4096, "embed")
    assert FASTCHAT == wire.FASTCHAT


def test_fields_a_replica_may_leave_out_have_the_wires_defaults() -> None:
    (found,) = table(row(1, "m")).replicas.values()
    expected = wire.ReplicaRoute(worker_name=found.key, model_names=["m"])
    for name in (
        "speed",
        "queue_length",
        "draining",
        "engine_model",
        "max_concurrency",
        "engine",
        "request_timeout_s",
        "max_model_len",
    ):
        assert getattr(found, name) == getattr(expected, name)


def test_the_context_of_a_name_is_the_shortest_of_its_replicas() -> None:
    rows = row(1, "m", max_model_len=4096), row(2, "m", "n", max_model_len=2048), row(3, "m", "other")
    found = merge(RouteTable(), table(*rows))
    assert [found.max_model_len(name) for name in ("m", "n", "other", "nobody")] == [2048, 2048, None, None]


@pytest.mark.parametrize(
    "bad",
    [
        {"worker_name": "ftp://x"}, {"worker_name": "http://"}, {"worker_name": "http://a b"}, {"worker_name": 5},
        {"worker_name": "http://u@x"}, {"worker_name": "http://x:99999"}, {"worker_name": "http://x/?q"},
        {"worker_name": "http://x\r\ny"}, {"speed": 0}, {"speed": -1}, {"speed": "fast"}, {"speed": True},
        {"model_names": "m"}, {"model_names": [1]}, {"max_concurrency": 0}, {"draining": "no"}, {"engine": 5},
        {"request_timeout_s": 0}, {"request_timeout_s": "1m"},
    ],
)  # fmt: skip
def test_a_replica_that_makes_no_sense_is_left_out_alone(bad: dict[str, Any]) -> None:
    answer = {
        "epoch": "a", "rev": 1, "settled": True, "dispatch": "lottery", "expected": [],
        "replicas": [{**row(1, "m"), **bad}, row(2, "m")],
    }  # fmt: skip
    parsed, complaints = parse(answer)
    assert keys(parsed) == {"2"}
    assert len(complaints) == 1
    assert "left out" in complaints[0]


@pytest.mark.parametrize(
    "answer",
    [None, [], "x", {}, {"epoch": 1, "rev": 1, "settled": True, "dispatch": "lottery", "replicas": [], "expected": []},
     {"epoch": "a", "rev": True, "settled": True, "dispatch": "lottery", "replicas": [], "expected": []},
     {"epoch": "a", "rev": 1, "settled": True, "dispatch": "dice", "replicas": [], "expected": []},
     {"epoch": "a", "rev": 1, "settled": True, "dispatch": "lottery", "replicas": {}, "expected": []}],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_an_error(answer: object) -> None:
    with pytest.raises(ValueError):
        parse(answer)


def test_serving_leaves_out_what_drains() -> None:
    routes = merge(
        RouteTable(), table(row(1, "m", "n"), row(2, "m", draining=True), row(3, "o", draining=True))
    )
    assert routes.names == ["m", "n"]
    assert [replica.port for replica in routes.serving["m"]] == [1]
    assert keys(routes) == {"1", "2", "3"}


# (settled, epoch, ports) of each answer, and the ports known after it.
HISTORIES: list[list[tuple[bool, str, set[int], set[int]]]] = [
    # A settled controller is believed, whatever was known.
    [(True, "a", {1, 2}, {1, 2}), (True, "a", {2}, {2}), (True, "a", set(), set())],
    # One that just started takes nothing away until it is settled.
    [
        (True, "a", {1, 2}, {1, 2}),
        (False, "b", set(), {1, 2}),
        (False, "b", {2}, {1, 2}),
        (True, "b", {2}, {2}),
    ],
    # What it has seen and lost is gone even before.
    [
        (True, "a", {1, 2}, {1, 2}),
        (False, "b", {1}, {1, 2}),
        (False, "b", set(), {2}),
        (False, "b", {3}, {2, 3}),
    ],
    # Two restarts in a row.
    [(True, "a", {1}, {1}), (False, "b", {2}, {1, 2}), (False, "c", set(), {1, 2}), (True, "c", {2}, {2})],
    # The first controller ever heard.
    [(False, "a", set(), set()), (False, "a", {1}, {1}), (False, "a", set(), set()), (True, "a", {1}, {1})],
]


@pytest.mark.parametrize("history", HISTORIES)
def test_histories_of_controllers(history: list[tuple[bool, str, set[int], set[int]]]) -> None:
    routes = RouteTable()
    for rev, (settled, epoch, ports, known) in enumerate(history):
        rows = [row(port, "m") for port in sorted(ports)]
        routes = merge(routes, table(*rows, settled=settled, epoch=epoch, rev=rev))
        assert keys(routes) == {str(port) for port in known}


def test_promises_are_kept_over_a_restart_until_it_is_settled() -> None:
    routes = merge(RouteTable(), table(row(1, "m"), expected=["m", "n"]))
    routes = merge(routes, table(epoch="b", settled=False))
    assert routes.expected == {"m", "n"}
    routes = merge(routes, table(epoch="b", settled=False, expected=["o"]))
    assert routes.expected == {"m", "n", "o"}
    assert merge(routes, table(epoch="b", expected=["o"])).expected == {"o"}


answers = st.lists(
    st.tuples(st.booleans(), st.sampled_from("abc"), st.sets(st.integers(1, 5))), min_size=1, max_size=12
)


@given(answers)
def test_nobody_is_invented_and_nobody_seen_is_missing(history: list[tuple[bool, str, set[int]]]) -> None:
    routes, ever = RouteTable(), set[str]()
    for settled, epoch, ports in history:
        rows = [row(port, "m") for port in ports]
        routes = merge(routes, table(*rows, settled=settled, epoch=epoch))
        told = {str(port) for port in ports}
        ever |= told
        assert told <= keys(routes) <= ever
        if settled:
            assert keys(routes) == told
            assert not routes.remembered
        assert {r.key for rs in routes.serving.values() for r in rs} == set(routes.replicas)


@pytest.mark.parametrize(
    ("url", "parts"),
    [("http://h", ("h", 80, b"")), ("http://h:1/", ("h", 1, b"")), ("http://[::1]:2/a/", ("::1", 2, b"/a"))],
)
def test_addresses(url: str, parts: tuple[str, int, bytes]) -> None:
    assert address(url) == parts


def test_processes_share_what_a_replica_can_do() -> None:
    answer = {
        "epoch": "a", "rev": 1, "settled": True, "dispatch": "lottery", "expected": [],
        "replicas": [row(1, "m", max_concurrency=8), row(2, "m", max_concurrency=1), row(3, "m")],
    }  # fmt: skip
    parsed, _ = parse(answer, processes=3)
    assert [replica.max_concurrency for replica in parsed.replicas.values()] == [3, 1, None]
