"""Threads for the cores that nobody else uses."""

from __future__ import annotations

import threading

import pytest

from llmlaunch.worker.compute.thread_count import CpuTime, ThreadAdjuster, idle_s, threads_for
from tests.support.waiting import wait_until

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


def test_idle_time_is_that_of_the_given_cores_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmlaunch.worker.compute.thread_count.TICKS", 100)
    assert idle_s(STAT, {0}) == pytest.approx(10.2)
    assert idle_s(STAT, {0, 1}) == pytest.approx(19.5)
    assert idle_s(STAT, {1, 11}) == pytest.approx(10.3)


class Machine:
    """Looks that were written down, at a time that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, looks: list[CpuTime]) -> None:
        self.now = 100.0
        self.looks = looks
        self.asked = 0
        self.set: list[int] = []
        monkeypatch.setattr("llmlaunch.worker.compute.thread_count.time.monotonic", lambda: self.now)

    def look(self) -> CpuTime:
        self.asked += 1
        return self.looks.pop(0)

    def adjuster(self, most: int) -> ThreadAdjuster:
        return ThreadAdjuster(most, self.look, self.set.append)


def test_threads_follow_the_machine_and_are_set_only_when_they_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(
        monkeypatch,
        [CpuTime(0, 0, 0), CpuTime(1, 2, 0), CpuTime(2, 3, 0), CpuTime(3, 4, 0), CpuTime(4, 4.5, 1.5)],
    )
    adjuster = machine.adjuster(2)
    for _ in range(5):
        adjuster.adjust()
        adjuster.adjust()
        machine.now += 1
    assert machine.asked == 5
    assert machine.set == [2, 1, 2]


def test_one_thread_needs_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, [])
    machine.adjuster(1).adjust()
    assert machine.asked == 0


def test_a_machine_that_tells_nothing_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def look() -> CpuTime:
        asked.append(1)
        raise FileNotFoundError("/proc/stat")

    machine = Machine(monkeypatch, [])
    adjuster = ThreadAdjuster(4, look, machine.set.append)
    for _ in range(3):
        adjuster.adjust()
        machine.now += 10
    assert (len(asked), machine.set) == (1, [4])


def test_work_beside_the_steps_has_a_core_of_its_own() -> None:
    threads: list[int] = []

    def look() -> CpuTime:
        raise FileNotFoundError("/proc/stat")

    adjuster, over = ThreadAdjuster(2, look, threads.append), threading.Event()

    def steps() -> None:
        while not over.wait(0.001):
            adjuster.adjust()

    engine = threading.Thread(target=steps)
    engine.start()
    try:
        wait_until(lambda: threads == [2])
        with adjuster.free_core():
            wait_until(lambda: threads == [2, 1])
        wait_until(lambda: threads == [2, 1, 2])
    finally:
        over.set()
        engine.join()


def test_where_nothing_is_computed_nobody_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, [])  # its clock stands still: whoever waits does so for ever
    with machine.adjuster(2).free_core():
        pass
    assert machine.set == []
