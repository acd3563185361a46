"""Verified workers: their supervisor sends the heartbeats."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.common.heartbeat import LEASE_S
from llmlaunch.controller import registry
from llmlaunch.controller.table import RegisteredWorker
from tests.unit.controller.tables import A, B, run, table, worker


def vouched(name: str = A, **fields: Any) -> RegisteredWorker:
    return worker(name, trusted=True, verified=True, **fields)


def test_no_lease_of_a_verified_worker_runs_out_by_itself() -> None:
    t = run(table(vouched(A), worker(B)), 10 * LEASE_S)
    assert list(t.workers) == [A]
    assert [w.name for w in registry.late_workers(t, t.ticked_at)] == [A]


def test_only_verified_workers_whose_lease_is_over_are_asked() -> None:
    t = table(vouched(A), worker(B), vouched("http://10.0.0.3:1", check_heart_beat=False))
    assert registry.late_workers(t, LEASE_S) == []
    assert [w.name for w in registry.late_workers(t, LEASE_S + 1)] == [A]


def test_a_late_worker_goes_at_once_when_nobody_is_there() -> None:
    t = run(table(vouched()), LEASE_S + 1)
    (asked,) = registry.late_workers(t, t.ticked_at)
    after = registry.probe_failed(t, asked, gone=True)
    assert after.workers == {}
    assert after.rev > t.rev


def test_a_late_worker_goes_when_it_is_silent_again_and_again() -> None:
    t = run(table(vouched()), LEASE_S + 1)
    for _ in range(registry.MAX_FAILED_PROBES - 1):
        (asked,) = registry.late_workers(t, t.ticked_at)
        t = registry.probe_failed(t, asked, gone=False)
        assert A in t.workers
    (asked,) = registry.late_workers(t, t.ticked_at)
    t = registry.probe_succeeded(t, asked)
    for _ in range(registry.MAX_FAILED_PROBES):
        (asked,) = registry.late_workers(t, t.ticked_at)
        t = registry.probe_failed(t, asked, gone=False)
    assert t.workers == {}


@pytest.mark.parametrize("news", ["heartbeat", "register", "drain", "unregister"])
def test_an_old_question_does_not_touch_a_worker_that_was_heard_of_meanwhile(news: str) -> None:
    t = run(table(vouched()), LEASE_S + 1)
    (asked,) = registry.late_workers(t, t.ticked_at)
    now = t.ticked_at + 1
    match news:
        case "heartbeat":
            t, _ = registry.heartbeat(t, A, 0, now)
        case "register":
            t = registry.register(t, vouched(now=now))
        case "drain":
            t, _ = registry.drain(t, A, now)
        case "unregister":
            t, _ = registry.unregister(t, A)
    assert registry.probe_failed(t, asked, gone=True) == t
    assert registry.probe_succeeded(t, asked) == t


def test_a_heartbeat_forgives_questions_that_were_not_answered() -> None:
    t = run(table(vouched()), LEASE_S + 1)
    (asked,) = registry.late_workers(t, t.ticked_at)
    t = registry.probe_failed(t, asked, gone=False)
    t, _ = registry.heartbeat(t, A, 0, t.ticked_at)
    assert t.workers[A].failed_probes == 0
