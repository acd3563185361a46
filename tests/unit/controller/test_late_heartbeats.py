"""The loop that asks verified workers whose heartbeat is late, over scripted answers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import cast

import pytest

from llmlaunch.common import process_identity
from llmlaunch.controller import registry
from llmlaunch.controller.late_heartbeats import LateWorkers
from llmlaunch.controller.live_table import LiveTable
from llmlaunch.controller.registry import FAILED_ASKS
from llmlaunch.controller.table import RegisteredWorker, empty
from llmlaunch.controller.worker_probe import Asker, NobodyThereError, NoStatusError, WorkerAddress

A = "http://127.0.0.1:21002"
B = "http://127.0.0.1:21003"
LATER = 1000.0


class FakeAsker:
    def __init__(self, answer: Callable[[str], Exception | None]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, float]] = []

    async def is_well(self, address: WorkerAddress, path: str, seconds: float, keyed: bool) -> None:
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

    async def until(self, asker: FakeAsker, condition: Callable[[], bool]) -> None:
        asks = cast("Asker", asker)
        loop = LateWorkers(asks, self.live, turn_s=0.001)
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
    asker = FakeAsker(lambda name: None)
    room = Room(worker())
    asyncio.run(room.until(asker, lambda: len(asker.asked) > 20))
    assert list(room.workers) == [A]
    assert set(asker.asked) == {(A, "/live", 7.0)}
    assert [r.message for r in caplog.records] == [
        f"{A} sends no heartbeats but answers: it stays listed; is its supervisor hung?"
    ]


def test_who_refuses_connections_goes_at_once(caplog: pytest.LogCaptureFixture) -> None:
    asker = FakeAsker(lambda name: NobodyThereError("nobody listens there"))
    room = Room(worker())
    asyncio.run(room.until(asker, lambda: not room.workers))
    assert len(asker.asked) == 1
    assert "no heartbeat, and nobody listens there" in caplog.text


def test_who_is_slow_has_several_tries() -> None:
    asker = FakeAsker(lambda name: NoStatusError("did not answer within 7 s"))
    room = Room(worker())
    asyncio.run(room.until(asker, lambda: not room.workers))
    assert len(asker.asked) == FAILED_ASKS


def test_one_that_hangs_holds_up_nobody_else() -> None:
    asker = FakeAsker(lambda name: NobodyThereError("nobody listens there"))
    room = Room(worker(B), worker(A))
    asyncio.run(room.until(asker, lambda: A not in room.workers))
    assert B in room.workers


def test_a_stranger_at_its_address_is_not_taken_for_it(caplog: pytest.LogCaptureFixture) -> None:
    me = process_identity.identify(os.getpid())
    assert me is not None
    asker = FakeAsker(lambda name: None)
    room = Room(worker(pid=me.pid, pid_started=me.started + 1))
    asyncio.run(room.until(asker, lambda: not room.workers))
    assert asker.asked == []
    assert f"its process {me.pid} has ended" in caplog.text
    room = Room(worker(pid=me.pid, pid_started=me.started))
    asyncio.run(room.until(asker, lambda: len(asker.asked) > 1))
    assert list(room.workers) == [A]
