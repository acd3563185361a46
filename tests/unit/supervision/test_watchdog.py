"""A loop that hangs is noticed by a thread, told with its place, and forgotten when it turns again."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmlaunch import paths
from llmlaunch.control import unresponsive
from llmlaunch.supervision.watchdog import Watchdog


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def hang_in_this_function(until_told: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not until_told() and time.monotonic() < end:
        time.sleep(0.005)


@pytest.fixture
def where(home: Path) -> paths.DeploymentPaths:
    found = paths.DeploymentPaths("lab")
    paths.private_dir(found.run)
    return found


def test_a_loop_that_hangs_is_told_with_the_place(
    where: paths.DeploymentPaths, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        watchdog = Watchdog(where, patience_s=0.1, beat_s=0.01)
        watchdog.start()
        await asyncio.sleep(0.05)
        hang_in_this_function(lambda: "has been blocked" in caplog.text)
        assert unresponsive.explain(where, os.getpid()) == "has been hanging for 0 s"
        assert unresponsive.explain(where, os.getpid() + 1) == "", "the note is another one's"
        await until(lambda: "is running again" in caplog.text)
        assert unresponsive.explain(where, os.getpid()) == ""
        watchdog.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "in hang_in_this_function" in caplog.text


def test_a_loop_that_turns_is_left_alone(
    where: paths.DeploymentPaths, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        watchdog = Watchdog(where, patience_s=5.0, beat_s=0.01)
        watchdog.start()
        seen: set[float] = set()

        def has_beaten_often() -> bool:
            seen.add(watchdog._beat)
            return len(seen) > 5

        await until(has_beaten_often)
        watchdog.close()

    asyncio.run(run())
    assert caplog.text == ""


def test_a_process_that_stood_still_as_a_whole_is_told_apart(
    where: paths.DeploymentPaths, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after SIGSTOP, or a night of the machine: the loop is no more to blame than the thread."""

    class Stopped(threading.Event):
        waited = 0

        def wait(self, timeout: float | None = None) -> bool:
            self.waited += 1
            time.sleep(0.3 if self.waited == 1 else 0.01)
            return self.waited > 3

    watchdog = Watchdog(where, patience_s=0.2, beat_s=0.01)
    watchdog._over = Stopped()
    watchdog._watch()
    assert "was suspended for 0 s: it was stopped, or the machine slept" in caplog.text
    assert "has been blocked" not in caplog.text
    assert not where.hang_note.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "since": "x"}', "[" * 4000])
def test_a_note_that_makes_no_sense_says_nothing(where: paths.DeploymentPaths, text: str) -> None:
    where.hang_note.write_text(text)
    assert unresponsive.explain(where, 0) == ""


def test_a_note_that_is_no_file_says_nothing(where: paths.DeploymentPaths) -> None:
    os.mkfifo(where.hang_note)
    assert unresponsive.explain(where, 0) == ""
    where.hang_note.unlink()
    where.hang_note.mkdir()
    assert unresponsive.explain(where, 0) == ""
