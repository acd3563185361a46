"""Threads for the cores that nobody else uses."""

from __future__ import annotations

import pytest

from llmlaunch.common.cpu_threads import CpuTime, cgroup_quota, cores_for_threads, idle_s, threads_for

STAT = """cpu  900 0 300 2000 40 0 0 0 0 0
cpu0 400 0 100 1000 20 0 0 0 0 0
cpu1 500 0 200 900 30 0 0 0 0 0
cpu11 0 0 0 100 0 0 0 0 0 0
intr 1 2 3
"""


@pytest.mark.parametrize(
    ("own", "idle", "most", "threads"),
    [
        (2.0, 0.0, 2, 2),  # alone, and busy with both
        (1.0, 1.0, 2, 2),  # alone, with one of two
        (0.0, 2.0, 2, 2),  # nothing to do so far
        (1.0, 0.0, 2, 1),  # another one has the second core
        (0.7, 0.0, 2, 1),  # three on two cores
        (0.1, 0.0, 2, 1),  # never less than one
        (1.6, 0.1, 2, 2),  # a client takes a little
        (5.2, 1.1, 8, 6),
        (9.0, 7.0, 4, 4),  # more cores than it may use
    ],
)
def test_as_many_threads_as_cores_that_are_left(own: float, idle: float, most: int, threads: int) -> None:
    assert threads_for(CpuTime(10, 3, 5), CpuTime(11, 3 + own, 5 + idle), most) == threads


def test_two_looks_at_the_same_time_tell_nothing() -> None:
    assert threads_for(CpuTime(10, 1, 1), CpuTime(10, 1, 1), 4) == 4


def test_idle_time_is_that_of_the_given_cores_alone() -> None:
    assert idle_s(STAT, {0}, 100) == pytest.approx(10.2)
    assert idle_s(STAT, {0, 1}, 100) == pytest.approx(19.5)
    assert idle_s(STAT, {1, 11}, 100) == pytest.approx(10.3)


@pytest.mark.parametrize(
    ("allowed", "physical", "logical", "quotas", "cores"),
    [
        (8, 8, 8, (), 8),
        (8, 4, 8, (), 4),  # hyper-threads
        (2, 4, 8, (), 1),  # taskset to one core's two threads
        (8, None, None, (), 8),
        (16, 16, 16, (2.0,), 2),
        (16, 16, 16, (4.0, 1.5, 8.0), 2),  # the smallest counts, to the nearest core
        (16, 16, 16, (0.2,), 1),
        (1, 8, 16, (), 1),
    ],
)
def test_cores_to_compute_on(
    allowed: int, physical: int | None, logical: int | None, quotas: tuple[float, ...], cores: int
) -> None:
    assert cores_for_threads(allowed, physical, logical, quotas) == cores


@pytest.mark.parametrize(
    ("content", "quota"),
    [
        ("200000 100000\n", 2.0),
        ("50000 100000", 0.5),
        ("max 100000", None),
        ("-1 100000", None),  # version 1 for no limit
        ("1000 0", None),
        ("", None),
        ("1000", None),
    ],
)
def test_the_quota_of_a_control_group(content: str, quota: float | None) -> None:
    assert cgroup_quota(content) == quota
