"""Which tokens are not computed again, and what idle rows give up for that."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.worker.engine.prefix_cache import common_prefix
from llmlaunch.worker.kv.types import Capacity, DropRow
from tests.unit.worker.world import World


def test_a_shared_prefix_is_reused_from_idle_and_running_rows() -> None:
    world = World(Capacity(rows=3, columns=200, tokens=600), prompt_budget=1000)
    base = list(range(60))
    world.add("first", [*base, 100], max_new=3)
    world.finish()
    world.add("second", [*base, 101], max_new=50)
    world.step()
    assert world.scheduler.cached("second") == 60
    world.add("third", [*base, 102], max_new=3)
    world.step()
    assert world.scheduler.cached("third") == 60
    world.add("fourth", [*base, 103], max_new=3, reuse=False)
    world.step()
    assert world.scheduler.cached("fourth") == 0


def test_an_older_conversation_is_not_destroyed_by_one_that_shares_its_beginning() -> None:
    world = World(Capacity(rows=2, columns=200, tokens=400), prompt_budget=1000)
    base = list(range(20))
    world.add("long", [*base, *range(100, 160)], max_new=2)
    world.finish()
    world.add("other", [*base, 300], max_new=2)
    world.finish()
    world.add("long again", [*base, *range(100, 160), 1], max_new=2)
    world.step()
    assert world.scheduler.cached("long again") == 80


def test_idle_rows_give_up_their_memory_for_requests() -> None:
    world = World(Capacity(rows=4, columns=100, tokens=100), prompt_budget=1000)
    for name, token in (("a", 1), ("b", 2)):
        world.add(name, [token] * 40, max_new=5)
        world.finish()
    world.add("c", [3] * 70, max_new=5)
    step = world.scheduler.step(1000)
    assert [move for move in step.moves if isinstance(move, DropRow)]


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40), st.integers(0, 50))
@settings(max_examples=200, deadline=None)
def test_common_prefix(a: list[int], b: list[int], most: int) -> None:
    most = min(most, len(a), len(b))
    expected = 0
    while expected < most and a[expected] == b[expected]:
        expected += 1
    assert common_prefix(a, b, most) == expected
