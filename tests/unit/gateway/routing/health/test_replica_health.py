"""The circuit breaker of a replica, and its count of requests."""

from __future__ import annotations

from llmlaunch.gateway.routing.health.replica_health import (
    ERRORS_IN_A_ROW,
    REST_MOST_S,
    Breaker,
    ReplicaHealth,
)


def test_rest_grows_and_an_answer_ends_it() -> None:
    load, now, rests = ReplicaHealth(), 0.0, []
    for _ in range(8):
        load.failed(now)
        load.failed(now)  # a second request met the same death
        rests.append(load.resting_until - now)
        now = load.resting_until
    assert rests[:3] == [0.25, 0.5, 1.0]
    assert max(rests) == REST_MOST_S
    load.answered()
    assert (load.failures, load.resting_until) == (0, 0.0)


def test_our_own_requests_are_not_counted_twice() -> None:
    load = ReplicaHealth(in_flight=3)
    load.reported(5)
    assert load.others == 2
    load.reported(1)
    assert load.others == 0


def test_a_probe_that_fails_opens_it_for_longer() -> None:
    load = ReplicaHealth()
    load.failed(0.0)
    load.probing = True
    load.failed(1.0)
    assert (load.probing, load.resting_until, load.breaker(1.2)) == (False, 1.5, Breaker.OPEN)
    load.probing = True
    load.erred(2.0)  # an error of its own is no recovery
    assert (load.probing, load.resting_until) == (False, 3.0)


def test_errors_in_a_row_open_it_and_a_good_answer_between_does_not() -> None:
    load = ReplicaHealth()
    for _ in range(ERRORS_IN_A_ROW - 1):
        load.erred(0.0)
    assert load.breaker(0.0) is Breaker.CLOSED
    load.answered()
    for _ in range(ERRORS_IN_A_ROW):
        load.erred(0.0)
    assert load.breaker(0.0) is Breaker.OPEN
