"""Who goes first, and who makes room: nothing starves, nothing waits in a circle, nothing is lost."""

from __future__ import annotations

import random

import pytest

from llmlaunch.worker.engine import scheduled_request
from llmlaunch.worker.engine.scheduled_request import MOST_OVERTAKES, ScheduledRequest
from llmlaunch.worker.engine.scheduler import FIXED_CHUNK, Scheduler
from llmlaunch.worker.kv.types import Capacity
from tests.unit.worker.world import World


@pytest.mark.parametrize("seed", range(60))
def test_answers_that_are_longer_than_expected_are_whole_all_the_same(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(scheduled_request, "GROWTH", chance.choice((1, 3, 8)))
    rows, columns = chance.randint(1, 5), chance.randint(70, 100)
    world = World(
        Capacity(rows, columns, chance.randint(columns, max(columns, rows * columns // 2))),
        prompt_budget=chance.choice((1, 7, 500)),
    )
    cancelled: set[str] = set()
    for at in range(120):
        if chance.random() < 0.4:
            prompt = [chance.randrange(3) for _ in range(chance.randint(1, 30))]
            world.add(
                f"r{at}", prompt, chance.randint(1, 40), expected=chance.choice((None, 0, 1, 5)),
                priority=chance.choice((0, 0, 1)), reuse=chance.random() < 0.8,
            )  # fmt: skip
        elif chance.random() < 0.15 and (here := sorted(world.scheduler.requests())):
            name = chance.choice(here)
            assert world.scheduler.remove(name)
            cancelled.add(name)
        world.step()
    world.finish()
    for name, request in world.requests.items():
        assert name in cancelled or len(world.said[name]) == request.max_new, "lost"
    assert len(world.scheduler._prefixes.idle) == rows, "a row leaked"


def test_requests_without_a_limit_run_side_by_side_where_full_reservations_would_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduled_request, "GROWTH", 4)
    world = World(Capacity(rows=4, columns=100, tokens=120), prompt_budget=1000)
    for at in range(4):
        world.add(f"r{at}", [at] * 10, max_new=90, expected=4)
    world.step()
    assert world.scheduler.running == 4
    world.finish()
    assert world.scheduler.preempted > 0
    assert all(len(said) == 90 for said in world.said.values())
    assert list(world.said) == world.order


def test_the_last_is_preempted_and_one_with_a_full_reservation_never_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduled_request, "GROWTH", 4)
    world = World(Capacity(rows=3, columns=60, tokens=110), prompt_budget=1000)
    world.add("first", [1] * 10, max_new=45, expected=4)
    world.add("second", [2] * 10, max_new=45, expected=4)
    world.add("reserved", [3] * 10, max_new=40)
    running: set[str] = set()
    while not {"first", "reserved"} & {name for name, said in world.said.items() if len(said) >= 40}:
        running = set(world.step())
    assert {"first", "reserved"} <= running
    assert "second" not in running
    said = len(world.said["second"])
    assert said > 0
    world.finish()
    assert len(world.said["second"]) == 45


def test_what_a_request_found_computed_is_not_told_anew_when_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduled_request, "GROWTH", 4)
    world = World(Capacity(rows=2, columns=60, tokens=70), prompt_budget=1000)
    world.add("first", [1] * 10, max_new=50, expected=4)
    world.add("second", [2] * 10, max_new=50, expected=4)
    seen = set()
    while world.scheduler.busy:
        world.step()
        if "second" in world.scheduler._running:
            seen.add(world.scheduler.cached("second"))
    assert world.scheduler.preempted
    assert seen == {0}


def _flow(world: World, name: str, most: int) -> int:
    """Steps that ``name`` waits for its end while urgent requests never stop coming."""
    for at in range(most):
        while world.scheduler.waiting < 5:
            world.add(f"urgent {len(world.said)}", [len(world.said), 7, 7], max_new=2, priority=-(10**9))
        world.step()
        if len(world.said[name]) == world.requests[name].max_new:
            return at
    raise AssertionError(f"{name} starves")


@pytest.mark.parametrize("rows", [1, 3])
def test_a_steady_flow_of_urgent_requests_starves_nobody(rows: int) -> None:
    world = World(Capacity(rows=rows, columns=60, tokens=rows * 60), prompt_budget=50)
    world.add("patient", list(range(40)), max_new=3, priority=10**9)
    _flow(world, "patient", 4 * MOST_OVERTAKES + 100)


def test_a_prompt_that_is_being_computed_is_not_starved_by_urgent_prompts() -> None:
    world = World(Capacity(rows=8, columns=300, tokens=2400), prompt_budget=6)
    world.add("patient", list(range(200)), max_new=3, priority=5)
    world.step()
    assert world.scheduler.running == 1
    _flow(world, "patient", 4 * MOST_OVERTAKES + 300)


def test_urgent_ones_go_first_as_long_as_nobody_waits_too_long() -> None:
    world = World(Capacity(rows=1, columns=60, tokens=60), prompt_budget=50)
    world.add("patient", [1], max_new=1, priority=1)
    for at in range(MOST_OVERTAKES + 10):
        world.add(f"urgent {at}", [2], max_new=1)
    world.finish()
    assert world.order.index("patient") == MOST_OVERTAKES


def test_fixed_chunks_are_cut_at_the_same_places_whatever_runs_beside_them() -> None:
    def cuts(budget: int, *, crowd: bool) -> list[tuple[int, int]]:
        made = Scheduler(Capacity(rows=3, columns=1000, tokens=3000))
        if crowd:
            made.add(ScheduledRequest("other", tuple(range(500, 900)), max_new=5))
        made.add(ScheduledRequest("fixed", tuple(range(300)), max_new=5, fixed_chunks=True, reuse=False))
        found = []
        for _ in range(200):
            for span in made.step(budget).spans:
                if span.request_id == "fixed" and span.prompt:
                    found.append((span.start, len(span.tokens)))
                if span.samples:
                    made.advance(span.request_id, 1)
            if sum(size for _, size in found) == 300:
                return found
        raise AssertionError("never computed")

    expected = [(0, FIXED_CHUNK), (FIXED_CHUNK, FIXED_CHUNK), (2 * FIXED_CHUNK, 300 - 2 * FIXED_CHUNK)]
    assert cuts(2000, crowd=False) == expected
    assert cuts(16, crowd=True) == expected
