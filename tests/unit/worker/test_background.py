"""Long work beside the event loop is bounded, and given up when nobody waits for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llmlaunch.worker.background import AbandonedError, BackgroundThreads, check_abandoned
from llmlaunch.worker.errors import QueueFull

LIMIT_S = 10


class Work:
    """Goes on until it is told to end, or nobody waits for it."""

    def __init__(self) -> None:
        self.begun, self.end, self.left = threading.Event(), threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        while not self.end.wait(0.001):
            try:
                check_abandoned()
            except AbandonedError:
                self.left.set()
                raise
        return "done"


async def wait(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, LIMIT_S)


def test_work_is_done_in_a_thread_of_its_own() -> None:
    async def main() -> str:
        return await BackgroundThreads(1, "test").run(1, lambda: threading.current_thread().name)

    assert asyncio.run(main()).startswith("test")


def test_what_nobody_waits_for_ends_and_what_has_not_begun_never_does() -> None:
    async def main() -> None:
        apart, running, waiting = BackgroundThreads(1, "test"), Work(), Work()
        first = asyncio.ensure_future(apart.run(1, running))
        await wait(running.begun)
        second = asyncio.ensure_future(apart.run(1, waiting))
        await asyncio.sleep(0)
        second.cancel()
        first.cancel()
        await wait(running.left)
        assert await apart.run(1, lambda: "free again") == "free again"
        assert not waiting.begun.is_set()

    asyncio.run(main())


def test_beyond_its_bytes_it_takes_nothing_until_something_is_over() -> None:
    async def main() -> None:
        apart, work = BackgroundThreads(1, "test", max_bytes=100), Work()
        first = asyncio.ensure_future(apart.run(500, work))  # a single one is always taken
        await wait(work.begun)
        with pytest.raises(QueueFull):
            await apart.run(1, lambda: None)
        work.end.set()
        assert await first == "done"
        await asyncio.sleep(0)
        assert await apart.run(60, lambda: "taken") == "taken"

    asyncio.run(main())


def test_at_the_end_everything_is_disabled() -> None:
    async def main() -> None:
        apart, work = BackgroundThreads(1, "test"), Work()
        task = asyncio.ensure_future(apart.run(1, work))
        await wait(work.begun)
        apart.close()
        with pytest.raises(AbandonedError):
            await task

    asyncio.run(main())


def test_outside_of_such_work_nothing_is_ever_left() -> None:
    check_abandoned()
