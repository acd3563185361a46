"""The set of GPUs for a replica of several: the best one where all sets can be compared, a good one in a big box."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.planning import topology
from llmlaunch.planning.devices import Device
from llmlaunch.planning.topology import best_set

NVLINK, HOST = (6, 4), (2, 0)


def devices(count: int) -> list[Device]:
    return [Device(at, f"GPU-{at:02}", at, "H100", 80, 80) for at in range(count)]


def islands(count: int, size: int) -> list[list[tuple[int, int]]]:
    """Links of a box whose GPUs stand in NVLink islands of ``size``."""
    return [[NVLINK if a // size == b // size else HOST for b in range(count)] for a in range(count)]


def nothing(count: int) -> dict[int, int]:
    return dict.fromkeys(range(count), 0)


@pytest.mark.parametrize("wanted", [4, 6, 8])
def test_a_box_too_big_to_compare_all_sets_gives_gpus_of_one_island(wanted: int) -> None:
    chosen = best_set(devices(16), wanted, islands(16, 8), nothing(16), nothing(16))

    assert len(chosen) == wanted
    assert len({device.position // 8 for device in chosen}) == 1


def test_a_big_box_keeps_replicas_of_one_model_apart() -> None:
    taken = nothing(16) | dict.fromkeys(range(8), 1)

    chosen = best_set(devices(16), 8, islands(16, 8), taken, nothing(16))

    assert [device.position for device in chosen] == list(range(8, 16))


def test_where_links_are_equal_a_big_box_takes_the_fullest_gpus() -> None:
    left = {at: 100 - at for at in range(16)}

    chosen = best_set(devices(16), 8, islands(16, 16), nothing(16), left)

    assert [device.position for device in chosen] == list(range(8, 16))


@given(
    links=st.lists(st.sampled_from([NVLINK, HOST, (4, 0)]), min_size=15, max_size=15),
    crowd=st.lists(st.integers(0, 2), min_size=6, max_size=6),
    count=st.integers(2, 5),
)
def test_the_greedy_search_returns_a_set_of_that_size_without_more_crowd_than_needed(
    links: list[tuple[int, int]], crowd: list[int], count: int
) -> None:
    square = [[HOST] * 6 for _ in range(6)]
    for (a, b), link in zip(combinations(range(6), 2), links, strict=True):
        square[a][b] = square[b][a] = link
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topology, "_EXHAUSTIVE", 0)
        chosen = best_set(devices(6), count, square, dict(enumerate(crowd)), nothing(6))

    positions = {device.position for device in chosen}
    assert len(positions) == count
    assert sum(crowd[at] for at in positions) == sum(sorted(crowd)[:count])
