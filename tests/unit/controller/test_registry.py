"""The table as histories: what happened, at which second, and what gateways then see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.common.heartbeat import FASTCHAT_LEASE_S, HEARTBEAT_S, LEASE_S
from llmlaunch.controller import lookup, registry
from llmlaunch.controller.table import OPEN_SETTLE_S, SETTLE_S, Table, empty, worker_from
from llmlaunch.controller.wire import (
    FASTCHAT,
    RegisterWorker,
    WorkerStatus,
)
from tests.unit.controller.tables import NAMES, A, B, apply, run, table, worker


def test_a_registered_worker_is_in_the_routes_with_all_it_said() -> None:
    request = RegisterWorker(
        worker_name=A,
        component="m-1",
        engine="vllm",
        engine_model="org/m",
        kind="embed",
        max_concurrency=7,
        request_timeout_s=90.0,
        max_model_len=4096,
        multimodal=True,
    )
    status = WorkerStatus(model_names=["m", "n", "m"], speed=2.0, queue_length=3)
    t = registry.register(empty(0), worker_from(request, status, 5.0, trusted=True))
    (row,) = lookup.routes(t, "e", "lottery").replicas
    assert row.model_dump() == {
        "worker_name": A,
        "model_names": ["m", "n"],
        "speed": 2.0,
        "queue_length": 3,
        "draining": False,
        "component": "m-1",
        "engine": "vllm",
        "engine_model": "org/m",
        "kind": "embed",
        "max_concurrency": 7,
        "request_timeout_s": 90.0,
        "max_model_len": 4096,
        "keyed": False,
    }
    assert lookup.models(t) == ["m", "n"]
    assert lookup.models(t, multimodal=True) == ["m", "n"]
    assert lookup.models(t, multimodal=False) == []


def test_only_the_trusted_are_believed_without_proof() -> None:
    request = RegisterWorker(worker_name=A, verified=True)
    status = WorkerStatus(model_names=["m"])
    assert worker_from(request, status, 0, trusted=True).verified
    assert not worker_from(request, status, 0, trusted=False).verified


def test_registering_the_same_address_again_replaces() -> None:
    t = table(worker(A, models=("old",)), worker(A, models=("new",)))
    assert lookup.models(t) == ["new"]
    assert len(t.workers) == 1


def test_registering_again_without_news_makes_no_revision() -> None:
    t = table(worker(A))
    again = registry.register(t, worker(A, now=7.0))
    assert again.rev == t.rev
    assert again.workers[A].last_seen == 7.0


def test_a_worker_that_heartbeats_stays() -> None:
    t = table(worker(A))
    for beat in range(1, 20):
        t = run(t, HEARTBEAT_S)
        t, exist = registry.heartbeat(t, A, 0, beat * HEARTBEAT_S)
        assert exist


def test_a_silent_worker_is_forgotten_when_its_lease_is_over_and_not_before() -> None:
    t = run(table(worker(A)), LEASE_S)
    assert A in t.workers
    rev = t.rev
    t = run(t, 0.5)
    assert t.workers == {}
    assert t.rev > rev
    assert registry.heartbeat(t, A, 0, t.ticked_at) == (t, False)


def test_a_worker_that_promised_no_heartbeat_is_kept() -> None:
    assert A in run(table(worker(A, check_heart_beat=False)), 10 * LEASE_S).workers


def test_a_controller_that_stood_still_blames_nobody() -> None:
    t = run(table(worker(A)), 3.0)
    t = registry.tick(t, 3.0 + 10 * LEASE_S)
    assert A in t.workers
    assert run(t, LEASE_S + 1).workers == {}


def test_unregistering_takes_effect_at_once() -> None:
    t = table(worker(A), worker(B))
    gone, exist = registry.unregister(t, A)
    assert exist
    assert list(gone.workers) == [B]
    assert gone.rev > t.rev
    assert registry.unregister(gone, A) == (gone, False)


def test_a_draining_worker_is_shown_but_gets_nothing_new() -> None:
    t, exist = registry.drain(table(worker(A)), A, 1.0)
    assert exist
    assert lookup.routes(t, "e", "lottery").replicas[0].draining
    assert lookup.models(t) == []
    assert lookup.assign(t, "m", "shortest_queue", 0.0, 1.0)[1] == ""
    assert registry.drain(t, A, 2.0) == (t, True)  # again: nothing new
    assert registry.drain(t, B, 2.0) == (t, False)


def test_a_new_life_at_a_drained_address_serves() -> None:
    t, _ = registry.drain(table(worker(A)), A, 1.0)
    assert lookup.models(registry.register(t, worker(A, now=2.0))) == ["m"]


def test_the_table_settles_when_every_worker_had_time_to_come_back() -> None:
    t = run(empty(100.0), SETTLE_S - 0.5)
    assert not t.settled
    rev = t.rev
    t = run(t, 1.0)
    assert t.settled
    assert t.rev == rev + 1
    assert run(t, 60.0).rev == t.rev


def test_expected_names_make_a_revision_when_they_change() -> None:
    t = registry.expect(empty(0), ["a", "b", "a"])
    assert t.expected == ("a", "b")
    assert registry.expect(t, ["a", "b"]).rev == t.rev
    assert registry.expect(t, ["a"]).rev == t.rev + 1


def test_queue_lengths_are_published_with_the_next_tick_not_with_every_heartbeat() -> None:
    t = table(worker(A), worker(B))
    rev = t.rev
    t, _ = registry.heartbeat(t, A, 4, 0.1)
    t, _ = registry.heartbeat(t, B, 5, 0.2)
    assert t.rev == rev
    t = registry.tick(t, 0.5)
    assert t.rev == rev + 1
    assert [r.queue_length for r in lookup.routes(t, "e", "lottery").replicas] == [4, 5]
    assert registry.tick(t, 1.0).rev == t.rev


def test_refreshing_takes_over_names_but_keeps_a_drain_and_revives_nobody() -> None:
    t, _ = registry.drain(table(worker(A)), A, 1.0)
    t = registry.refresh(t, A, WorkerStatus(model_names=["new"]))
    assert t.workers[A].model_names == ("new",)
    assert t.workers[A].draining_since == 1.0
    assert registry.refresh(t, B, WorkerStatus(model_names=["x"])) == t


messages = st.one_of(
    st.tuples(st.just("register"), st.sampled_from(NAMES), st.sampled_from(["m", "n"])),
    st.tuples(st.just("heartbeat"), st.sampled_from(NAMES), st.integers(0, 3)),
    st.tuples(st.just("unregister"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("drain"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("report"), st.sampled_from(NAMES), st.integers(0, 3)),
    st.tuples(st.just("expect"), st.just(""), st.sampled_from(["m", "n"])),
    st.tuples(st.just("tick"), st.just(""), st.none()),
)


def shown(t: Table) -> Any:
    """What gateways act on: everything but queue lengths, which may be late."""
    routes = lookup.routes(t, "e", "lottery")
    rows = [r.model_dump(exclude={"queue_length"}) for r in routes.replicas]
    return rows, routes.expected, routes.settled


@settings(max_examples=200)
@given(st.lists(st.tuples(messages, st.floats(0, 4)), max_size=60))
def test_over_random_histories(history: list[tuple[tuple[str, str, Any], float]]) -> None:
    """Revisions tell of every change; nobody outlives a lease; nobody leaves early; registered and silent is shown."""
    t, now = empty(0.0), 0.0
    last_word: dict[str, float] = {}
    for message, wait in history:
        before, now = t, now + wait
        t = registry.tick(
            t, now
        )  # the controller ticks twice a second: no history has longer gaps between ticks
        t = apply(t, message, now)
        verb, name, _ = message
        if verb == "register" or (verb == "heartbeat" and name in before.workers and name in t.workers):
            last_word[name] = now
        elif verb == "unregister":
            last_word.pop(name, None)
        assert t.rev >= before.rev
        if shown(t) != shown(before):
            assert t.rev > before.rev
        alive = {name for name, at in last_word.items() if now - at <= LEASE_S}
        assert set(t.workers) == alive
        assert all(lookup.in_flight(t, n, now) >= 0 for n in NAMES)


@pytest.mark.parametrize("field", ["speed", "engine_model", "max_concurrency", "trusted"])
def test_any_changed_field_is_news(field: str) -> None:
    changes: dict[str, Any] = {"speed": 3.0, "engine_model": "x", "max_concurrency": 2, "trusted": True}
    t = table(worker(A))
    assert registry.register(t, replace(worker(A), **{field: changes[field]})).rev == t.rev + 1


def test_fastchats_own_workers_have_two_of_their_heartbeats_time() -> None:
    t = run(table(worker(A, engine=FASTCHAT), worker(B)), LEASE_S + 1)
    assert set(t.workers) == {A}
    assert run(t, 2 * 45 - LEASE_S).workers.keys() == {A}
    assert run(t, FASTCHAT_LEASE_S).workers == {}


def test_a_controller_that_waits_for_them_settles_later() -> None:
    t = empty(0, OPEN_SETTLE_S)
    assert not run(t, OPEN_SETTLE_S - 1).settled
    assert run(t, OPEN_SETTLE_S).settled
