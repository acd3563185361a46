"""The loop that probing verified workers whose heartbeat is late, over scripted answers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import cast

import pytest

from llmlaunch.common import process_identity
from llmlaunch.controller import registry
from llmlaunch.controller.late_workers import LateWorkerProber
from llmlaunch.controller.live_table import LiveTable
from llmlaunch.controller.registry import MAX_FAILED_PROBES
from llmlaunch.controller.table import RegisteredWorker, empty
from llmlaunch.controller.worker_probe import NotListeningError, ProbeFailedError, WorkerAddress, WorkerProber

A = "http://127.0.0.1:21002"
B = "http://127.0.0.1:21003"
LATER = 1000.0


class FakeProber:
    def __init__(self, answer: Callable[[str], Exception | None]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, float]] = []

    async def check_health(self, address: WorkerAddress, path: str, seconds: float, keyed: bool) -> None:
        self.asked.append((str(address), path, seconds))
        if str(address) == B:
            await asyncio.sleep(3600)
        if error := self.answer(str(address)):
            raise error


class Room:
    """A table in which every lease is over."""

    def __init__(self, *workers: RegisteredWorker) -> None:
        table = empty(0.0)
        for worker in workers:
            table = registry.register(table, worker)
        self.live = LiveTable(table, lambda: LATER)

    @property
    def workers(self) -> Mapping[str, RegisteredWorker]:
        return self.live.current.workers

    async def until(self, prober: FakeProber, condition: Callable[[], bool]) -> None:
        probing = cast("WorkerProber", prober)
        loop = LateWorkerProber(probing, self.live, interval_s=0.001)
        task = asyncio.create_task(loop.run())
        try:
            end = time.monotonic() + 10
            while not condition():
                assert time.monotonic() < end
                await asyncio.sleep(0.001)
        finally:
            task.cancel()


def worker(name: str = A, pid: int | None = None, pid_started: int = 0) -> RegisteredWorker:
    return RegisteredWorker(
        name, ("m",), 0.0, verified=True, probe_path="/live", probe_timeout_s=7.0, pid=pid, pid_started=pid_started
    )  # fmt: skip


def test_who_answers_stays_however_long(caplog: pytest.LogCaptureFixture) -> None:
    prober = FakeProber(lambda name: None)
    room = Room(worker())
    asyncio.run(room.until(prober, lambda: len(prober.asked) > 20))
    assert list(room.workers) == [A]
    assert set(prober.asked) == {(A, "/live", 7.0)}
    assert [r.message for r in caplog.records] == [
        f"{A} sends no heartbeats but answers: it stays listed; is its supervisor hung?"
    ]


def test_who_refuses_connections_goes_at_once(caplog: pytest.LogCaptureFixture) -> None:
    prober = FakeProber(lambda name: NotListeningError("nobody listens there"))
    room = Room(worker())
    asyncio.run(room.until(prober, lambda: not room.workers))
    assert len(prober.asked) == 1
    assert "no heartbeat, and nobody listens there" in caplog.text


def test_who_is_slow_has_several_tries() -> None:
    prober = FakeProber(lambda name: ProbeFailedError("did not answer within 7 s"))
    room = Room(worker())
    asyncio.run(room.until(prober, lambda: not room.workers))
    assert len(prober.asked) == MAX_FAILED_PROBES


def test_one_that_hangs_holds_up_nobody_else() -> None:
    prober = FakeProber(lambda name: NotListeningError("nobody listens there"))
    room = Room(worker(B), worker(A))
    asyncio.run(room.until(prober, lambda: A not in room.workers))
    assert B in room.workers


def test_a_stranger_at_its_address_is_not_taken_for_it(caplog: pytest.LogCaptureFixture) -> None:
    me = process_identity.identify(os.getpid())
    assert me is not None
    prober = FakeProber(lambda name: None)
    room = Room(worker(pid=me.pid, pid_started=me.started + 1))
    asyncio.run(room.until(prober, lambda: not room.workers))
    assert prober.asked == []
    assert f"its process {me.pid} has ended" in caplog.text
    room = Room(worker(pid=me.pid, pid_started=me.started))
    asyncio.run(room.until(prober, lambda: len(prober.asked) > 1))
    assert list(room.workers) == [A]
