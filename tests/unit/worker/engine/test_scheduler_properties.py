"""What holds in every history of the scheduler, however long: nobody is lost, nobody waits without end, nothing grows."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmlaunch.worker.engine.scheduled_request import ScheduledRequest
from llmlaunch.worker.kv.types import Capacity
from tests.unit.worker.world import World

SHARED = [list(range(first, first + 40)) for first in (0, 0, 100)]
"""Beginnings that prompts have in common; the second ends like none of the others."""
SHARED[1] = SHARED[0][:25] + list(range(200, 215))

PROMPTS = st.builds(
    lambda which, common, own: SHARED[which][:common] + own,
    st.integers(0, 2),
    st.sampled_from((0, 7, 8, 24, 40)),
    st.lists(st.integers(300, 303), min_size=1, max_size=20),
)
ACTIONS = st.one_of(
    st.tuples(st.just("add"), PROMPTS, st.integers(1, 9), st.booleans(), st.sampled_from((0, 0, 1))),
    st.tuples(st.just("again"), st.integers(0, 30), st.integers(1, 9)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("step"), st.integers(1, 6)),
)
CAPACITIES = st.builds(
    lambda rows, share: Capacity(rows, 70, round(70 + (rows - 1) * 70 * share)),
    st.integers(1, 5),
    st.sampled_from((0.0, 0.3, 1.0)),
)


class Watched(World):
    """Also sees that who speaks goes on speaking: a step never leaves a decoding request out."""

    def step(self) -> list[str]:
        before = {
            name for name in self.scheduler.requests()
            if self.said[name] and self.scheduler.row_of(name) is not None
        }  # fmt: skip
        sampled = super().step()
        assert before <= set(sampled), "a running answer was held up"
        return sampled

    def act(self, action: tuple[Any, ...]) -> None:
        kind, *values = action
        name = f"r{len(self.requests)}"
        known = list(self.requests)
        if kind == "add":
            prompt, new, reuse, priority = values
            self.add(name, prompt, new, reuse=reuse, priority=priority)
        elif kind == "again" and known:
            leader = known[values[0] % len(known)]
            self.add(name, list(self.requests[leader].prompt), values[1], after=leader)
        elif kind == "cancel" and known:
            gone = known[values[0] % len(known)]
            here = gone in set(self.scheduler.requests())
            assert self.scheduler.remove(gone) == here
            if here:
                self.cancelled.add(gone)
        elif kind == "step":
            for _ in range(values[0]):
                self.step()

    def __init__(self, capacity: Capacity, prompt_budget: int) -> None:
        super().__init__(capacity, prompt_budget)
        self.cancelled: set[str] = set()


@given(CAPACITIES, st.sampled_from((1, 5, 64)), st.lists(ACTIONS, max_size=40))
@settings(max_examples=150, deadline=None)
def test_nothing_is_lost_in_any_history(
    capacity: Capacity, budget: int, actions: list[tuple[Any, ...]]
) -> None:
    world = Watched(capacity, budget)
    for action in actions:
        world.act(action)
    world.finish()
    for name, request in world.requests.items():
        assert name in world.cancelled or len(world.said[name]) == request.max_new, f"{name} is lost"
    assert not list(world.scheduler.requests())
    assert world.scheduler.kv_used == 0
    # Every row is free again: as many requests as there are rows run side by side.
    new = min(5, capacity.tokens // capacity.rows - 1)
    for row in range(capacity.rows):
        world.scheduler.add(ScheduledRequest(f"after {row}", (900 + row,), new))
    world.scheduler.step(1000)
    assert world.scheduler.running == capacity.rows


@given(CAPACITIES, st.sampled_from((1, 5, 64)), st.lists(ACTIONS, max_size=40))
@settings(max_examples=100, deadline=None)
@example(Capacity(2, 70, 70), 5, [("add", [300], 1, 0, 0), ("step", 1), *[("add", [300], 1, 0, 0)] * 2])
def test_those_that_share_nothing_start_in_the_order_they_came(
    capacity: Capacity, budget: int, actions: list[tuple[Any, ...]]
) -> None:
    world = Watched(capacity, budget)
    for kind, *values in actions:
        if kind == "add":
            prompt, new, _, _ = values
            world.add(f"r{len(world.requests)}", prompt, new, reuse=False)
        elif kind == "step":
            for _ in range(values[0]):
                world.step()
    world.finish()
    began = [world.began[name] for name in world.requests]
    assert began == sorted(began)


@given(
    capacity=CAPACITIES,
    budget=st.sampled_from((1, 5, 64)),
    running=st.lists(st.tuples(PROMPTS, st.integers(1, 9)), max_size=6),
    wanted=PROMPTS,
    arrivals=st.lists(st.tuples(PROMPTS, st.integers(1, 9), st.booleans()), min_size=1, max_size=4),
)
@settings(max_examples=100, deadline=None)
def test_an_endless_stream_of_others_does_not_starve_anybody(
    capacity: Capacity,
    budget: int,
    running: list[tuple[list[int], int]],
    wanted: list[int],
    arrivals: list[tuple[list[int], int, bool]],
) -> None:
    """Whatever keeps arriving, one request's wait is bounded by the work that was there before it."""
    world = Watched(capacity, budget)
    for at, (prompt, new) in enumerate(running):
        world.add(f"before {at}", prompt, new)
    world.add("wanted", wanted, 5)
    # Each before it may need a step a token of its prompt and of its answer, and so may a leader for each row.
    ahead = len(running) + capacity.rows + 1
    bound = ahead * (70 // min(budget, 70) + 9 + 2) + 70
    for at in range(bound):
        if len(world.said["wanted"]) == 5:
            return
        prompt, new, reuse = arrivals[at % len(arrivals)]
        world.add(f"later {at}", prompt, new, reuse=reuse)
        world.step()
    raise AssertionError(f"starved for {bound} steps")


def test_five_thousand_requests_leave_the_scheduler_as_small_as_five() -> None:
    """The same mix again and again: whatever is kept after the first round is no more after many."""
    world = Watched(Capacity(rows=6, columns=70, tokens=250), prompt_budget=20)
    sizes: Counter[int] = Counter()
    for at in range(5000):
        length = 1 + at * 37 % 60
        own = [300 + at * 7 % 13 + n % 3 for n in range(length)]
        world.add(f"r{at}", (SHARED[at % 3][: at % 40] + own)[:60], 1 + at % 9)
        world.step()
        if at % 11 == 0:
            world.scheduler.remove(f"r{at}")
            world.said.pop(f"r{at}")
        while world.scheduler.waiting > 4:
            world.step()
        # What is over is forgotten by the test, so that the scheduler alone could still know it.
        here = set(world.scheduler.requests())
        assert len(here) <= 10
        for name in [name for name in world.requests if name not in here]:
            del world.requests[name]
            world.said.pop(name, None)
        world.order.clear()
        if at % 1000 == 999:
            sizes[size_of(world.scheduler)] += 1
    assert max(sizes) < 2 * min(sizes)


def size_of(thing: Any) -> int:
    """How many values it reaches through its own fields, lists and dictionaries."""
    if isinstance(thing, dict):
        return sum(size_of(value) for value in thing.values())
    if isinstance(thing, list | tuple | set):
        return sum(map(size_of, thing))
    if hasattr(thing, "__slots__"):
        return sum(size_of(getattr(thing, name)) for name in thing.__slots__)
    if type(thing).__module__.startswith("llmlaunch"):
        return size_of(vars(thing))
    return 1
