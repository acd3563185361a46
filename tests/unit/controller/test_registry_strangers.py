"""Strangers under open registration."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.controller import lookup, registry
from llmlaunch.controller.table import Table, empty, worker_from
from llmlaunch.controller.wire import (
    RegisterWorker,
    WorkerStatus,
)
from tests.unit.controller.tables import NAMES, A, B, apply, worker

GUARDED = empty(0.0, guarded=True)


def named(t: Table) -> dict[str, list[str]]:
    """What gateways send where."""
    return {row.worker_name: row.model_names for row in lookup.routes(t, "e", "lottery").replicas}


def test_a_stranger_cannot_take_a_name_of_the_manifest() -> None:
    t = registry.expect(GUARDED, ["m"])
    assert "'m' is a name in this deployment's manifest" in registry.rejection_reason(
        t, B, ["x", "m"], trusted=False
    )
    assert registry.rejection_reason(t, B, ["x"], trusted=False) == ""
    assert registry.rejection_reason(t, B, ["x", "m"], trusted=True) == ""


def test_a_name_that_comes_into_the_manifest_is_taken_from_the_stranger_that_has_it() -> None:
    t = registry.register(registry.expect(GUARDED, []), worker(B, models=("m", "x")))
    assert named(t) == {B: ["m", "x"]}
    taken = registry.expect(t, ["m"])
    assert named(taken) == {B: ["x"]}
    assert taken.rev > t.rev
    assert lookup.models(taken) == ["x"]
    assert lookup.assign(taken, "m", "shortest_queue", 0.5, 1.0)[1] == ""
    assert named(registry.expect(taken, ["m", "x"])) == {}
    assert named(registry.expect(taken, [])) == {B: ["m", "x"]}, "and given back when it leaves the manifest"


def test_a_stranger_serves_nothing_before_the_deployment_has_said_what_it_promises() -> None:
    """A controller that restarts knows no names for a moment; who is quick then gets none of them."""
    t = empty(0.0, guarded=True, names_known=False)
    t = registry.register(t, worker(B, models=("m", "x")))
    t = registry.register(t, worker(A, models=("m",), trusted=True))
    assert named(t) == {A: ["m"]}
    told = registry.expect(t, ["m"])
    assert named(told) == {A: ["m"], B: ["x"]}
    nothing = registry.expect(t, [])
    assert named(nothing) == {A: ["m"], B: ["m", "x"]}
    assert nothing.rev > t.rev


def test_without_a_token_everybody_is_a_stranger_and_names_are_anybodys() -> None:
    t = registry.register(registry.expect(empty(0.0), ["m"]), worker(B))
    assert named(t) == {B: ["m"]}
    assert registry.rejection_reason(t, B, ["m"], trusted=False) == ""


def test_a_stranger_speaks_for_no_worker_of_the_deployment() -> None:
    t = registry.register(GUARDED, worker(A, trusted=True))
    assert "changing it needs a token" in registry.rejection_reason(t, A, (), trusted=False)
    assert registry.rejection_reason(t, A, (), trusted=True) == ""


def test_a_worker_gets_no_name_that_its_token_does_not_allow() -> None:
    """Neither by registering nor by answering with it later."""
    request, status = RegisterWorker(worker_name=A, verified=True), WorkerStatus(model_names=["m", "evil"])
    own = worker_from(request, status, 0.0, trusted=True, allowed_names=("m",))
    assert not own.verified, "only the supervisor vouches"
    t = registry.register(GUARDED, own)
    assert named(t) == {A: ["m"]}
    assert named(registry.refresh(t, A, WorkerStatus(model_names=["evil", "m", "evil"]))) == {A: ["m"]}


def test_only_the_deployments_own_workers_are_shown_a_key() -> None:
    request, status = RegisterWorker(worker_name=A, keyed=True), WorkerStatus(model_names=["m"])
    for trusted in (True, False):
        t = registry.register(empty(0), worker_from(request, status, 0.0, trusted=trusted))
        assert [row.keyed for row in lookup.routes(t, "e", "lottery").replicas] == [trusted]


strangers = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(NAMES), st.sampled_from(["m", "n", "x"])),
    st.tuples(st.just("heartbeat"), st.sampled_from(NAMES), st.integers(0, 3)),
    st.tuples(st.just("unregister"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("drain"), st.sampled_from(NAMES), st.none()),
)


@settings(max_examples=200)
@given(st.lists(strangers, max_size=40))
def test_whatever_strangers_do_the_deployments_own_workers_serve_its_names(
    history: list[tuple[str, str, Any]],
) -> None:
    """They are refused as the controller refuses them, and what is left of their messages changes nothing of ours."""
    t = registry.expect(GUARDED, ["m", "n"])
    t = registry.register(t, worker(NAMES[0], models=("m",), trusted=True, check_heart_beat=False))
    for at, message in enumerate(history):
        verb, name, value = message
        wanted = [value] if verb == "register" else []
        if not registry.rejection_reason(t, name, wanted, trusted=False):
            t = apply(t, message, float(at))
        ours = {k: v for k, v in named(t).items() if {"m", "n"} & set(v)}
        assert ours == {NAMES[0]: ["m"]}
