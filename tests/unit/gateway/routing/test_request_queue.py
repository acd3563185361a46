"""Who waits, who is next, and who has to go."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.routing.request_queue import QueueEntry, RequestQueue


def test_the_waiting_room_is_bounded_and_in_order() -> None:
    room: RequestQueue[str] = RequestQueue()
    entries = [room.add(item, "m", 10.0 + n, bound=3) for n, item in enumerate("abcd")]
    assert entries[3] is None
    assert (room.waiting("m"), room.waiting("n"), len(room)) == (3, 0, 3)
    first = next(room.in_order(["m"]))
    assert (first.item, room.holds(first)) == ("a", True)
    room.remove(first)
    room.remove(first)
    assert (room.waiting("m"), room.holds(first)) == (2, False)
    other = room.add("z", "n", 5.0, bound=1)
    assert other is not None
    assert [entry.item for entry in room.in_order(["n", "m"])] == ["b", "c", "z"]
    assert [entry.item for entry in room.overdue(11.5)] == ["b", "z"]
    assert list(room.in_order(["unknown"])) == []


@given(st.lists(st.tuples(st.sampled_from("mn"), st.integers(0, 5)), max_size=60))
def test_nobody_is_lost_in_the_waiting_room(history: list[tuple[str, int]]) -> None:
    room: RequestQueue[int] = RequestQueue()
    inside: list[QueueEntry[int]] = []
    for number, (name, action) in enumerate(history):
        if action < 4:
            entry = room.add(number, name, number, bound=4)
            assert (entry is None) == (sum(t.name == name for t in inside) >= 4)
            if entry is not None:
                inside.append(entry)
        elif inside:
            room.remove(inside.pop(0 if action == 4 else -1))
        assert len(room) == len(inside)
        assert list(room.in_order("mn")) == inside
        assert set(room.names) == {entry.name for entry in inside}


def enter(
    room: RequestQueue[str], item: str, key: str, name: str = "m", priority: int = 0
) -> QueueEntry[str]:
    entry = room.add(item, name, 10.0, 100, key, priority)
    assert entry is not None
    return entry


def serve(room: RequestQueue[str], names: str = "m") -> str:
    """Call the next one, as a freed slot does."""
    entry = next(room.in_order(names))
    room.mark_served(entry)
    room.remove(entry)
    return entry.item


def test_keys_take_turns_however_much_one_of_them_sends() -> None:
    room: RequestQueue[str] = RequestQueue()
    for number in range(4):
        enter(room, f"a{number}", "alice")
    assert [serve(room), serve(room)] == ["a0", "a1"]
    enter(room, "b0", "bob")
    enter(room, "b1", "bob")
    enter(room, "c0", "carol")
    assert [entry.item for entry in room.in_order("m")] == ["b0", "c0", "a2", "b1", "a3"]
    assert [serve(room) for _ in range(5)] == ["b0", "c0", "a2", "b1", "a3"]
    assert (len(room), bool(room), room.names) == (0, False, [])


def test_a_lower_priority_goes_first() -> None:
    room: RequestQueue[str] = RequestQueue()
    for item, key, priority in (
        ("last", "l", 1),
        ("a", "a", 0),
        ("first", "f", -5),
        ("b", "b", 0),
        ("second", "f", -5),
    ):
        enter(room, item, key, priority=priority)
    assert [serve(room) for _ in range(5)] == ["first", "second", "a", "b", "last"]


def test_a_slot_for_several_models_is_fair_too() -> None:
    room: RequestQueue[str] = RequestQueue()
    for number in range(3):
        enter(room, f"a{number}", "alice", "mn"[number % 2])
    enter(room, "b0", "bob", "n")
    assert [entry.item for entry in room.in_order("mn")] == ["a0", "b0", "a1", "a2"]


def test_who_crowds_makes_room_as_long_as_that_is_fair() -> None:
    room: RequestQueue[str] = RequestQueue()
    assert room.evictable("m", "bob") is None
    for number in range(4):
        enter(room, f"a{number}", "alice")
    for expected in ("a3", "a2"):
        crowding = room.evictable("m", "bob")
        assert crowding is not None
        assert crowding.item == expected
        room.remove(crowding)
        enter(room, "b", "bob")
    assert room.evictable("m", "bob") is None
    assert room.evictable("m", "alice") is None
    assert room.evictable("n", "carol") is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("mn"), st.integers(0, 3)), max_size=80))
def test_nobody_who_waits_is_called_less_often_than_others(history: list[tuple[str, str, int]]) -> None:
    """While a key waits, any other key is called at most once more than it."""
    room: RequestQueue[str] = RequestQueue()
    calls: Counter[str] = Counter()
    since: dict[str, Counter[str]] = {}
    for key, name, action in history:
        if action:
            enter(room, key, key, name)
            since.setdefault(key, Counter(calls))
        elif room:
            called = serve(room, "mn")
            calls[called] += 1
            left = {entry.key for entry in room.in_order("mn")}
            since = {k: v for k, v in since.items() if k in left}
        for waiting, before in since.items():
            own = calls[waiting] - before[waiting]
            assert all(calls[other] - before[other] <= own + 1 for other in "abc")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=80))
def test_places_are_shared(history: list[tuple[str, bool]]) -> None:
    room: RequestQueue[str] = RequestQueue()
    for key, comes in history:
        if comes:
            crowding = room.evictable("m", key) if room.waiting("m") >= 6 else None
            if crowding is not None:
                room.remove(crowding)
            room.add(key, "m", 1.0, 6, key)
        elif room:
            serve(room)
        assert room.waiting("m") <= 6
