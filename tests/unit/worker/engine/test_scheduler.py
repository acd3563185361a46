"""The scheduler by its histories: nothing lost, nothing starved, never two requests in one row."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from llmlaunch.worker.engine.scheduled_request import ScheduledRequest
from llmlaunch.worker.engine.scheduler import Scheduler
from llmlaunch.worker.kv.types import Capacity
from tests.unit.worker.world import World


def tokens(chance: random.Random, shared: list[int]) -> list[int]:
    return shared[: chance.choice((0, 10, 30))] + [chance.randrange(50) for _ in range(chance.randint(1, 30))]


@pytest.mark.parametrize("seed", range(60))
def test_histories(seed: int) -> None:
    chance = random.Random(seed)
    rows, columns = chance.randint(1, 5), chance.randint(70, 100)
    world = World(
        Capacity(rows, columns, chance.randint(columns, rows * columns)),
        prompt_budget=chance.choice((1, 7, 500)),
    )
    shared = [chance.randrange(50) for _ in range(30)]
    cancelled: set[str] = set()
    names: Iterator[str] = (f"r{at}" for at in range(10**6))
    for _ in range(150):
        roll = chance.random()
        if roll < 0.35:
            after = chance.choice(list(world.requests)) if world.requests and chance.random() < 0.2 else ""
            world.add(
                next(names), tokens(chance, shared), chance.randint(1, 9), priority=chance.choice((0, 0, 1)),
                reuse=chance.random() < 0.8, after=after,
            )  # fmt: skip
        elif roll < 0.45 and (here := sorted(world.scheduler.requests())):
            name = chance.choice(here)
            assert world.scheduler.remove(name)
            assert not world.scheduler.remove(name)
            cancelled.add(name)
        world.step()
    world.finish()
    for name, request in world.requests.items():
        assert name in cancelled or len(world.said[name]) == request.max_new, "lost"
    assert world.scheduler.running == world.scheduler.waiting == 0
    assert len(world.scheduler._prefixes.idle) == rows, "a row leaked"


def test_first_come_first_served_within_a_priority() -> None:
    world = World(Capacity(rows=1, columns=50, tokens=50))
    for name, priority in (("a", 1), ("b", 1), ("c", 0), ("d", 1)):
        world.add(name, [1, 2, 3], priority=priority)
    world.finish()
    assert world.order == ["c", "a", "b", "d"]


def test_one_that_does_not_fit_now_makes_later_ones_wait() -> None:
    world = World(Capacity(rows=3, columns=100, tokens=100))
    world.add("long runner", [1] * 40, max_new=20)
    world.step()
    world.add("large", [2] * 70, max_new=20)
    world.add("small", [3] * 3, max_new=2)
    world.finish()
    assert world.order == ["long runner", "large", "small"]


def test_one_that_can_never_fit_is_refused_at_once() -> None:
    scheduler = Scheduler(Capacity(rows=2, columns=50, tokens=80))
    with pytest.raises(ValueError, match="needs more"):
        scheduler.add(ScheduledRequest("x", tuple(range(30)), max_new=21))
    with pytest.raises(ValueError, match="needs more"):
        scheduler.add(ScheduledRequest("x", (), max_new=1))
    scheduler.add(ScheduledRequest("x", tuple(range(30)), max_new=20))
    with pytest.raises(ValueError, match="already"):
        scheduler.add(ScheduledRequest("x", (1,), max_new=1))


def test_decodes_go_on_while_a_long_prompt_is_computed() -> None:
    world = World(Capacity(rows=2, columns=5000, tokens=10000), prompt_budget=32)
    world.add("talker", [1, 2, 3], max_new=200)
    world.step()
    world.add("reader", list(range(4000)), max_new=2)
    for _ in range(120):
        assert "talker" in world.step()


def test_of_many_that_arrive_at_once_one_computes_what_they_share() -> None:
    world = World(Capacity(rows=8, columns=200, tokens=1600), prompt_budget=1000)
    base = list(range(40))
    for at in range(8):
        world.add(f"r{at}", [*base, 100 + at, 200 + at], max_new=3)
    first = world.scheduler.step(1000)
    assert [span.request_id for span in first.spans] == ["r0"]
    second = world.scheduler.step(1000)
    assert sum(len(span.tokens) for span in second.spans if span.request_id != "r0") == 7 * 2
    assert [world.scheduler.cached(f"r{at}") for at in range(8)] == [0] + [40] * 7
