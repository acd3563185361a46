from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.balance import (
    REST_MOST_S,
    UNCAPPED_MOST,
    Load,
    Ticket,
    WaitingRoom,
    is_full,
    pick,
    places_to_wait,
)  # fmt: skip
from llmlaunch.gateway.routes import Replica


def replica(key: str, speed: float = 1.0, cap: int | None = None) -> Replica:
    return Replica(key=key, host="h", port=1, names=("m",), speed=speed, max_concurrency=cap)


def picked(
    replicas: list[Replica], loads: dict[str, Load], tried: tuple[str, ...] = (), now: float = 0.0
) -> str | None:
    found = pick(replicas, loads, tried, "shortest_queue", now, 0.0)
    return found.key if found else None


def test_the_fewest_requests_over_speed_win() -> None:
    both = [replica("a"), replica("b", speed=4.0)]
    assert picked(both, {"a": Load(in_flight=1), "b": Load(in_flight=3)}) == "b"
    assert picked(both, {"a": Load(in_flight=1), "b": Load(in_flight=5)}) == "a"
    assert picked(both, {"a": Load(others=2), "b": Load(others=7)}) == "b"


def test_a_cap_is_kept_and_all_at_their_caps_means_wait() -> None:
    both = [replica("a", cap=1), replica("b", cap=2)]
    assert picked(both, {"a": Load(in_flight=1), "b": Load(in_flight=1)}) == "b"
    assert picked(both, {"a": Load(in_flight=1), "b": Load(in_flight=2)}) is None
    assert picked([replica("a", cap=1)], {"a": Load(in_flight=1)}) is None
    assert picked([replica("a")], {"a": Load(in_flight=UNCAPPED_MOST - 1)}) == "a"
    assert picked([replica("a")], {"a": Load(in_flight=UNCAPPED_MOST)}) is None
    # Requests of others are a reason to prefer another replica, none to wait: they may be over already.
    assert picked([replica("a", cap=1)], {"a": Load(others=5)}) == "a"


def test_a_tried_replica_is_not_asked_again() -> None:
    assert picked([replica("a"), replica("b")], {"b": Load(in_flight=9)}, tried=("a",)) == "b"
    with pytest.raises(LookupError):
        picked([replica("a")], {}, tried=("a",))


def test_a_resting_replica_is_left_out_while_there_are_others() -> None:
    loads = {"a": Load(), "b": Load(in_flight=9)}
    loads["a"].failed(now=0.0)
    both = [replica("a"), replica("b")]
    assert picked(both, loads, now=0.1) == "b"
    assert picked([replica("a")], loads, now=0.1) == "a"
    assert picked(both, loads, now=REST_MOST_S + 1) == "a"


def test_rest_grows_and_an_answer_ends_it() -> None:
    load, now, rests = Load(), 0.0, []
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
    load = Load(in_flight=3)
    load.reported(5)
    assert load.others == 2
    load.reported(1)
    assert load.others == 0


requests = st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=60)


@given(requests, st.integers(1, 3), st.integers(1, 3))
def test_caps_hold_over_random_histories(history: list[tuple[str, bool]], cap_a: int, cap_b: int) -> None:
    both = [replica("a", cap=cap_a), replica("b", cap=cap_b)]
    loads = {"a": Load(), "b": Load()}
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
    assert is_full(one, {"a": Load(in_flight=1)}, (), 0.0)
    assert not is_full(one, {"a": Load()}, (), 0.0)
    assert not is_full([*one, replica("b")], {"a": Load(in_flight=1)}, ("a", "b"), 0.0)


def test_the_queue_has_some_places_for_every_slot() -> None:
    assert places_to_wait([replica("a", cap=2), replica("b", cap=3)]) == 4 * 5 + 64


def test_the_waiting_room_is_bounded_and_in_order() -> None:
    room: WaitingRoom[str] = WaitingRoom()
    tickets = [room.enter(item, "m", 10.0 + n, bound=3) for n, item in enumerate("abcd")]
    assert tickets[3] is None
    assert (room.waiting("m"), room.waiting("n"), len(room)) == (3, 0, 3)
    first = room.in_line(["m"])[0]
    assert (first.item, room.holds(first)) == ("a", True)
    room.leave(first)
    room.leave(first)
    assert (room.waiting("m"), room.holds(first)) == (2, False)
    other = room.enter("z", "n", 5.0, bound=1)
    assert other is not None
    assert [ticket.item for ticket in room.in_line(["n", "m"])] == ["b", "c", "z"]
    assert [ticket.item for ticket in room.late(11.5)] == ["b", "z"]
    assert room.in_line(["unknown"]) == []


@given(st.lists(st.tuples(st.sampled_from("mn"), st.integers(0, 5)), max_size=60))
def test_nobody_is_lost_in_the_waiting_room(history: list[tuple[str, int]]) -> None:
    room: WaitingRoom[int] = WaitingRoom()
    inside: list[Ticket[int]] = []
    for number, (name, action) in enumerate(history):
        if action < 4:
            ticket = room.enter(number, name, number, bound=4)
            assert (ticket is None) == (sum(t.name == name for t in inside) >= 4)
            if ticket is not None:
                inside.append(ticket)
        elif inside:
            room.leave(inside.pop(0 if action == 4 else -1))
        assert len(room) == len(inside)
        assert room.in_line("mn") == inside
        assert set(room.queues) == {ticket.name for ticket in inside}
