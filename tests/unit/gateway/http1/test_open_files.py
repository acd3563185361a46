"""Who gives way when files run short."""

from __future__ import annotations

import resource

import pytest

from llmlaunch.gateway.http1.open_files import CLOSING_S, NONE_IDLE_S, OpenFiles


@pytest.mark.parametrize(
    ("limit", "tight", "full", "backlog"),
    [
        (1024, 768, 896, 128),
        (65536, 63488, 64512, 1024),
        (64, 32, 48, 16),
        (resource.RLIM_INFINITY, 1 << 62, 1 << 62, 1024),
    ],
)
def test_what_is_kept_back(limit: int, tight: int, full: int, backlog: int) -> None:
    found = OpenFiles(lambda most: 0, lambda: 0.0, limit)
    assert (found.evict_from, found.reserved_from, found.backlog) == (tight, full, backlog)


def test_each_new_one_costs_an_idle_one_its_place_and_all_are_looked_at_rarely() -> None:
    idle, looks, now, batch = [4 * 64 + 1], [0], [0.0], 64

    def close_idle(most: int) -> int:
        looks[0] += 1
        closed = min(most, idle[0])
        idle[0] -= closed
        return closed

    found = OpenFiles(close_idle, lambda: now[0], 1024)
    assert found.batch == batch
    assert all(found.make_room(found.evict_from) for _ in range(3 * batch))
    assert (idle[0], looks[0]) == (batch + 1, 3)
    # What was closed before has given its numbers back, and others have taken them.
    assert found.make_room(found.evict_from)
    now[0] += CLOSING_S
    assert found.make_room(found.evict_from)
    assert (idle[0], looks[0]) == (0, 5)
    now[0] += CLOSING_S
    # Nobody lies idle: that is believed for a moment.
    assert not any(found.make_room(found.evict_from) for _ in range(100))
    assert looks[0] == 6
    idle[0], now[0] = 1, now[0] + NONE_IDLE_S
    assert found.make_room(found.evict_from)
    assert not found.make_room(found.evict_from)
