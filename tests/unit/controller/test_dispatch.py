"""The ways to choose a replica."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.common.dispatch_methods import METHODS, DispatchMethod
from llmlaunch.controller.dispatch import LOAD_BOUND, Candidate, choose

draws = st.floats(min_value=0, max_value=1, exclude_max=True)
candidate_lists = st.lists(
    st.builds(
        Candidate,
        key=st.uuids().map(str),
        speed=st.floats(min_value=0.01, max_value=100),
        queue=st.integers(min_value=0, max_value=1000),
    ),
    min_size=1,
    max_size=12,
)


def spread(method: DispatchMethod, candidates: list[Candidate], draws: int = 1000) -> Counter[str]:
    return Counter(choose(method, candidates, i / draws).key for i in range(draws))


def test_shortest_queue_takes_the_least_loaded() -> None:
    candidates = [Candidate("a", 1, 3), Candidate("b", 1, 1), Candidate("c", 1, 2)]
    assert spread("shortest_queue", candidates) == {"b": 1000}


def test_shortest_queue_weighs_by_speed() -> None:
    assert spread("shortest_queue", [Candidate("slow", 1, 3), Candidate("fast", 4, 8)]) == {"fast": 1000}


def test_ties_of_shortest_queue_are_spread_evenly() -> None:
    candidates = [Candidate("a", 1, 0), Candidate("b", 1, 0), Candidate("busy", 1, 1), Candidate("c", 1, 0)]
    assert spread("shortest_queue", candidates, 999) == {"a": 333, "b": 333, "c": 333}


def test_lottery_draws_by_speed_and_ignores_queues() -> None:
    assert spread("lottery", [Candidate("a", 1, 0), Candidate("b", 3, 99)]) == {"a": 250, "b": 750}


@pytest.mark.parametrize("method", METHODS)
def test_no_candidates_is_a_fault_of_the_caller(method: DispatchMethod) -> None:
    with pytest.raises(ValueError, match="no candidates"):
        choose(method, [], 0.5)


@given(candidate_lists, draws)
def test_lottery_always_gives_one_of_them(candidates: list[Candidate], draw: float) -> None:
    assert choose("lottery", candidates, draw) in candidates


@given(candidate_lists, draws)
def test_nobody_is_less_loaded_than_the_shortest_queue(candidates: list[Candidate], draw: float) -> None:
    chosen = choose("shortest_queue", candidates, draw)
    assert all(chosen.queue / chosen.speed <= c.queue / c.speed for c in candidates)


# -- round robin


def test_round_robin_goes_round() -> None:
    three = [Candidate(key, 2.0, 0) for key in "abc"]
    assert "".join(choose("round_robin", three, 0.5, turn).key for turn in range(7)) == "abcabca"


def test_round_robin_by_speed_is_even_over_any_stretch() -> None:
    candidates = [Candidate("slow", 1, 0), Candidate("fast", 3, 99)]
    for start in range(0, 1000, 37):
        keys = [choose("round_robin", candidates, 0.5, turn).key for turn in range(start, start + 40)]
        assert 8 <= keys.count("slow") <= 12


# -- prefix


def prefixes(count: int) -> list[bytes]:
    return [number.to_bytes(16) for number in range(count)]


def test_the_same_prefix_goes_to_the_same_replica_and_others_are_spread_by_speed() -> None:
    candidates = [Candidate("a", 1, 0), Candidate("b", 1, 0), Candidate("c", 2, 0)]
    found = Counter(choose("prefix", candidates, 0.5, 0, prefix).key for prefix in prefixes(4000))
    assert found == Counter(
        choose("prefix", candidates[::-1], 0.1, 9, prefix).key for prefix in prefixes(4000)
    )
    assert abs(found["a"] - 1000) < 150
    assert abs(found["c"] - 2000) < 150


def test_a_replica_that_goes_moves_only_its_own() -> None:
    candidates = [Candidate(key, 1, 0) for key in "abcd"]
    for prefix in prefixes(500):
        before = choose("prefix", candidates, 0.5, 0, prefix).key
        after = choose("prefix", [c for c in candidates if c.key != "d"], 0.5, 0, prefix).key
        assert before in (after, "d")


@given(candidate_lists, st.binary(min_size=1, max_size=80))
def test_nobody_gets_more_than_the_bound(candidates: list[Candidate], prefix: bytes) -> None:
    chosen = choose("prefix", candidates, 0.5, 0, prefix)
    share = chosen.speed / sum(c.speed for c in candidates)
    assert chosen.queue < LOAD_BOUND * share * (1 + sum(c.queue for c in candidates)) + 1


def test_one_popular_prefix_is_shared_out() -> None:
    queues = dict.fromkeys("abc", 0)
    for _ in range(300):
        candidates = [Candidate(key, 1, queue) for key, queue in queues.items()]
        queues[choose("prefix", candidates, 0.5, 0, b"popular").key] += 1
    assert max(queues.values()) <= 300 * LOAD_BOUND / 3 + 1
    assert min(queues.values()) > 0


def test_without_a_prefix_the_shortest_queue_counts() -> None:
    assert spread("prefix", [Candidate("a", 1, 3), Candidate("b", 1, 1)]) == {"b": 1000}
