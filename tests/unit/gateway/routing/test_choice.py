from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.routing.choice import UNCAPPED_MOST, is_full, pick, places_to_wait
from llmlaunch.gateway.routing.health.replica_health import (
    REST_MOST_S,
    SLOW_START_S,
    Breaker,
    ReplicaHealth,
)
from llmlaunch.gateway.routing.route_table import RoutedReplica


def replica(key: str, speed: float = 1.0, cap: int | None = None) -> RoutedReplica:
    return RoutedReplica(key=key, host="h", port=1, names=("m",), speed=speed, max_concurrency=cap)


def picked(
    replicas: list[RoutedReplica],
    loads: dict[str, ReplicaHealth],
    tried: tuple[str, ...] = (),
    now: float = 0.0,
) -> str | None:
    found = pick(replicas, loads, tried, "shortest_queue", now, 0.0)
    return found.key if found else None


def test_the_fewest_requests_over_speed_win() -> None:
    both = [replica("a"), replica("b", speed=4.0)]
    assert picked(both, {"a": ReplicaHealth(in_flight=1), "b": ReplicaHealth(in_flight=3)}) == "b"
    assert picked(both, {"a": ReplicaHealth(in_flight=1), "b": ReplicaHealth(in_flight=5)}) == "a"
    assert picked(both, {"a": ReplicaHealth(others=2), "b": ReplicaHealth(others=7)}) == "b"


def test_a_cap_is_kept_and_all_at_their_caps_means_wait() -> None:
    both = [replica("a", cap=1), replica("b", cap=2)]
    assert picked(both, {"a": ReplicaHealth(in_flight=1), "b": ReplicaHealth(in_flight=1)}) == "b"
    assert picked(both, {"a": ReplicaHealth(in_flight=1), "b": ReplicaHealth(in_flight=2)}) is None
    assert picked([replica("a", cap=1)], {"a": ReplicaHealth(in_flight=1)}) is None
    assert picked([replica("a")], {"a": ReplicaHealth(in_flight=UNCAPPED_MOST - 1)}) == "a"
    assert picked([replica("a")], {"a": ReplicaHealth(in_flight=UNCAPPED_MOST)}) is None
    # Requests of others are a reason to prefer another replica, none to wait: they may be over already.
    assert picked([replica("a", cap=1)], {"a": ReplicaHealth(others=5)}) == "a"


def test_a_tried_replica_is_not_asked_again() -> None:
    assert picked([replica("a"), replica("b")], {"b": ReplicaHealth(in_flight=9)}, tried=("a",)) == "b"
    with pytest.raises(LookupError):
        picked([replica("a")], {}, tried=("a",))


def test_a_resting_replica_is_left_out_while_there_are_others() -> None:
    loads = {"a": ReplicaHealth(), "b": ReplicaHealth(in_flight=9)}
    loads["a"].failed(now=0.0)
    both = [replica("a"), replica("b")]
    assert picked(both, loads, now=0.1) == "b"
    assert picked([replica("a")], loads, now=0.1) == "a"
    assert picked(both, loads, now=REST_MOST_S + 1) == "a"


requests = st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=60)


@given(requests, st.integers(1, 3), st.integers(1, 3))
def test_caps_hold_over_random_histories(history: list[tuple[str, bool]], cap_a: int, cap_b: int) -> None:
    both = [replica("a", cap=cap_a), replica("b", cap=cap_b)]
    loads = {"a": ReplicaHealth(), "b": ReplicaHealth()}
    for key, begins in history:
        if begins:
            found = pick(both, loads, (), "lottery", 0.0, 0.5)
            if found is None:
                assert (loads["a"].in_flight, loads["b"].in_flight) == (cap_a, cap_b)
            else:
                loads[found.key].in_flight += 1
        elif loads[key].in_flight:
            loads[key].in_flight -= 1
        assert loads["a"].in_flight <= cap_a
        assert loads["b"].in_flight <= cap_b


def test_full_is_not_the_same_as_nobody_left() -> None:
    one = [replica("a", cap=1)]
    assert is_full(one, {"a": ReplicaHealth(in_flight=1)}, (), 0.0)
    assert not is_full(one, {"a": ReplicaHealth()}, (), 0.0)
    assert not is_full([*one, replica("b")], {"a": ReplicaHealth(in_flight=1)}, ("a", "b"), 0.0)


def test_the_queue_has_some_places_for_every_slot() -> None:
    assert places_to_wait([replica("a", cap=2), replica("b", cap=3)]) == 4 * 5 + 64
    assert places_to_wait([replica("a", cap=2)], processes=3) == 4 * 2 + 22


# -- the breaker


def opened(now: float = 0.0) -> ReplicaHealth:
    load = ReplicaHealth()
    load.failed(now)
    return load


def test_half_open_lets_one_request_probe() -> None:
    loads = {"a": opened(), "b": ReplicaHealth(in_flight=9)}
    both = [replica("a"), replica("b")]
    assert loads["a"].breaker(0.1) is Breaker.OPEN
    assert loads["a"].breaker(1.0) is Breaker.HALF_OPEN
    assert picked(both, loads, now=1.0) == "a"
    loads["a"].probing = True
    assert picked(both, loads, now=1.0) == "b"
    loads["a"].answered()
    assert loads["a"].breaker(1.0) is Breaker.CLOSED
    assert picked(both, loads, now=1.0) == "a"


def test_when_all_breakers_are_open_somebody_is_asked_all_the_same() -> None:
    assert picked([replica("a"), replica("b")], {"a": opened(), "b": opened()}, now=0.1) == "a"


def test_a_replica_that_joins_gets_its_share_slowly() -> None:
    both = [replica("old"), replica("new")]
    loads = {"old": ReplicaHealth(in_flight=10), "new": ReplicaHealth()}
    loads["new"].joined(0.0)

    def filled(now: float) -> int:
        """How many requests the new one gets until it counts as busy as the old one."""
        loads["new"].in_flight = 0
        while picked(both, loads, now=now) == "new":
            loads["new"].in_flight += 1
        return loads["new"].in_flight

    # At an equal load per speed the first in the row gets the request.
    assert [filled(now) for now in (0.0, 2.0, 5.0, SLOW_START_S)] == [1, 2, 5, 10]
    assert loads["new"].since is None
