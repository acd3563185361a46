"""What the table answers: names, requests in flight, and the worker for the next request."""

from __future__ import annotations

from llmlaunch.common.heartbeat import REPORT_LEASE_S
from llmlaunch.controller import lookup, registry
from llmlaunch.controller.lookup import DRAIN_NOTICE_S
from tests.unit.controller.tables import A, B, table, worker


def test_the_same_model_on_two_workers_is_normal() -> None:
    t = table(worker(A), worker(B))
    assert lookup.models(t) == ["m"]
    assert [r.worker_name for r in lookup.routes(t, "e", "lottery").replicas] == [A, B]


def test_in_flight_is_the_sum_of_what_gateways_said_last() -> None:
    t = registry.report(table(worker(A)), "g1", {A: 9, B: 1}, 0.0)
    t = registry.report(t, "g1", {A: 2}, 1.0)
    t = registry.report(t, "g2", {A: 3}, 2.0)
    assert lookup.in_flight(t, A, 2.0) == 5
    assert lookup.in_flight(t, B, 2.0) == 0
    assert lookup.in_flight(t, A, 1.0 + REPORT_LEASE_S + 0.1) == 3  # g1 is silent, maybe dead
    assert lookup.in_flight(t, A, 99.0) == 0
    assert registry.tick(t, 99.0).reports == {}


def test_a_drain_waits_for_the_word_of_busy_gateways() -> None:
    t = registry.report(table(worker(A), worker(B)), "g1", {B: 1}, 0.0)
    t = registry.report(t, "idle", {}, 0.0)
    t, _ = registry.drain(t, A, 0.5)
    assert lookup.in_flight(t, A, 0.6) == 1  # g1 may have sent one meanwhile
    assert lookup.in_flight(t, A, 0.5 + DRAIN_NOTICE_S) == 0  # it would have told by now
    told = registry.report(t, "g1", {B: 1}, 0.7)
    assert lookup.in_flight(told, A, 0.8) == 0
    assert lookup.in_flight(registry.report(t, "g1", {A: 2}, 0.7), A, 0.8) == 2


def test_a_drain_of_an_idle_system_is_over_at_once() -> None:
    t, _ = registry.drain(table(worker(A)), A, 0.0)
    assert lookup.in_flight(t, A, 0.0) == 0


def test_a_burst_between_two_heartbeats_is_spread() -> None:
    t = table(worker(A), worker(B))
    given_to = []
    for _ in range(10):
        t, address = lookup.assign(t, "m", "shortest_queue", 0.0, 0.0)
        given_to.append(address)
    assert given_to.count(A) == given_to.count(B) == 5


def test_what_gateways_have_in_flight_counts_in_the_choice() -> None:
    t = registry.report(table(worker(A), worker(B)), "g", {A: 3}, 0.0)
    assert lookup.assign(t, "m", "shortest_queue", 0.0, 0.0)[1] == B


def test_nobody_serves_an_unknown_model() -> None:
    assert lookup.assign(table(worker(A)), "other", "lottery", 0.0, 0.0)[1] == ""
