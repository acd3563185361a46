"""Threads for the cores that nobody else uses."""

from __future__ import annotations

import threading

import pytest

from llmlaunch.common.cpu_threads import CpuTime
from llmlaunch.worker.compute.thread_count import ThreadAdjuster
from tests.support.waiting import wait_until


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
