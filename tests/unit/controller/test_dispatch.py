"""The two ways to choose a replica."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.controller.dispatch import LOTTERY, METHODS, SHORTEST_QUEUE, Candidate, choose

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


def spread(method: str, candidates: list[Candidate], draws: int = 1000) -> Counter[str]:
    return Counter(choose(method, candidates, i / draws).key for i in range(draws))


def test_shortest_queue_takes_the_least_loaded() -> None:
    candidates = [Candidate("a", 1, 3), Candidate("b", 1, 1), Candidate("c", 1, 2)]
    assert spread(SHORTEST_QUEUE, candidates) == {"b": 1000}


def test_shortest_queue_weighs_by_speed() -> None:
    assert spread(SHORTEST_QUEUE, [Candidate("slow", 1, 3), Candidate("fast", 4, 8)]) == {"fast": 1000}


def test_ties_of_shortest_queue_are_spread_evenly() -> None:
    candidates = [Candidate("a", 1, 0), Candidate("b", 1, 0), Candidate("busy", 1, 1), Candidate("c", 1, 0)]
    assert spread(SHORTEST_QUEUE, candidates, 999) == {"a": 333, "b": 333, "c": 333}


def test_lottery_draws_by_speed_and_ignores_queues() -> None:
    assert spread(LOTTERY, [Candidate("a", 1, 0), Candidate("b", 3, 99)]) == {"a": 250, "b": 750}


@pytest.mark.parametrize("method", METHODS)
def test_no_candidates_is_a_fault_of_the_caller(method: str) -> None:
    with pytest.raises(ValueError, match="no candidates"):
        choose(method, [], 0.5)


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match=r"'fastest'.*shortest_queue, lottery"):
        choose("fastest", [Candidate("a", 1, 0)], 0.5)


@given(candidate_lists, draws)
def test_lottery_always_gives_one_of_them(candidates: list[Candidate], draw: float) -> None:
    assert choose(LOTTERY, candidates, draw) in candidates


@given(candidate_lists, draws)
def test_nobody_is_less_loaded_than_the_shortest_queue(candidates: list[Candidate], draw: float) -> None:
    chosen = choose(SHORTEST_QUEUE, candidates, draw)
    assert all(chosen.queue / chosen.speed <= c.queue / c.speed for c in candidates)
