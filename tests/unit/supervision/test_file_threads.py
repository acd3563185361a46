"""Disks that hang, as events that never come."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmlaunch.supervision.file_threads import FileThreads, LatestValueThread, LogThread
from llmlaunch.supervision.health.start_progress import ProgressLines
from tests.support.waiting import wait_until


@pytest.fixture
def disk() -> Iterator[threading.Event]:
    """Hangs until it is set."""
    made = threading.Event()
    yield made
    made.set()


def test_what_hangs_is_gone_on_without_and_not_tried_again(disk: threading.Event) -> None:
    tries: list[int] = []

    def read() -> str:
        tries.append(1)
        disk.wait(10)
        return "late"

    async def run() -> None:
        beside = FileThreads()
        assert await beside.run("the log of a", read, "nothing", 0.02) == "nothing"
        assert await beside.run("the log of a", read, "nothing", 0.02) == "nothing"
        assert len(tries) == 1, "one thread hangs, not one for each try"
        assert await beside.run("the log of b", lambda: "well", "nothing") == "well", "others are not held up"
        disk.set()
        end = time.monotonic() + 10
        while await beside.run("the log of a", lambda: "well", "nothing") != "well":
            assert time.monotonic() < end
            await asyncio.sleep(0.005)

    asyncio.run(run())


def test_errors_come_through() -> None:
    async def run() -> None:
        beside = FileThreads()
        for error in (OSError("no such file"), TimeoutError("of its own")):

            def fail(error: Exception = error) -> str:
                raise error

            with pytest.raises(type(error), match=re.escape(str(error))):
                await beside.run("reading", fail, "nothing")
        assert await beside.run("reading", lambda: "well", "nothing") == "well"

    asyncio.run(run())


def test_more_reads_may_hang_than_a_pool_has_threads(disk: threading.Event) -> None:
    async def run() -> None:
        beside = FileThreads()
        hanging = [beside.run(f"log {i}", lambda: disk.wait(10), False, 0.05) for i in range(50)]
        assert await asyncio.gather(*hanging) == [False] * 50
        assert await asyncio.to_thread(lambda: "well") == "well"

    asyncio.run(run())


def test_of_values_that_come_while_one_is_written_the_newest_is_written(disk: threading.Event) -> None:
    begun, written = threading.Event(), list[int]()

    def write(value: int) -> None:
        begun.set()
        disk.wait(10)
        written.append(value)

    newest = LatestValueThread(write)
    newest.put(1)
    assert begun.wait(10)
    for value in (2, 3, 4):
        newest.put(value)
    assert not newest.finish(0.01), "it hangs, and nobody waits for it"
    disk.set()
    wait_until(lambda: written == [1, 4])


def test_who_logs_waits_for_no_disk(disk: threading.Event) -> None:
    said: list[str] = []

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            disk.wait(10)
            said.append(self.format(record))

    root = logging.getLogger()
    before = root.handlers
    root.handlers = [Slow()]
    try:
        beside = LogThread.install()
        changing = {"n": 1}
        logging.getLogger("test").warning("first %s", changing)
        changing["n"] = 2
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            logging.getLogger("test").exception("second")
        assert said == []
        disk.set()
        beside.uninstall(10)
        assert said[0] == "first {'n': 1}"
        assert said[1].startswith("second\nTraceback")
        assert root.handlers == [*beside._handlers]
    finally:
        root.handlers = before


def test_a_reading_that_hangs_keeps_its_file_until_it_comes_back(
    tmp_path: Path, disk: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed under its hands, the descriptor could be another file's by then."""
    signs = ProgressLines(tmp_path / "log", ("shard",))
    closed, begun = list[bool](), threading.Event()

    def read(most: int) -> bytes:
        begun.set()
        disk.wait(10)
        return b"shard 1\n"

    monkeypatch.setattr(signs._stream, "read", read)
    monkeypatch.setattr(signs._stream, "close", lambda: closed.append(True))
    thread = threading.Thread(target=signs.newest)
    thread.start()
    assert begun.wait(10)
    signs.close()
    assert closed == []
    disk.set()
    thread.join(10)
    assert closed == [True]
