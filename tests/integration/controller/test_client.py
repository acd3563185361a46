"""The client, and the loop that keeps a worker registered, against real controllers."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.controller.app import Controller
from llmlaunch.controller.client import (
    ControllerClient,
    ControllerRefused,
    ControllerUnreachable,
    keep_registered,
)
from llmlaunch.controller.wire import RegisterWorker, WorkerStatus
from llmlaunch.errors import UsageError
from tests.integration.controller.support import TOKEN, fake_worker, in_thread, process
from tests.support.ports import free_port

WORKER = "http://127.0.0.1:9"


def registration(name: str = WORKER, *models: str) -> RegisterWorker:
    status = WorkerStatus(model_names=list(models or ("m",)))
    return RegisterWorker(worker_name=name, worker_status=status, verified=True)


async def eventually(condition: Callable[[], Awaitable[Any]], deadline_s: float = 20) -> Any:
    async with asyncio.timeout(deadline_s):
        while not (value := await condition()):
            await asyncio.sleep(0.02)
        return value


class Kept:
    """A worker under keep_registered, and what it was told."""

    def __init__(self, url: str, token: str = TOKEN, name: str = WORKER) -> None:
        self.told: list[tuple[bool, str]] = []
        self.client = ControllerClient(url, token, timeout_s=2)
        self.name = name
        self.tries = 0
        self.task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self, heartbeat_s: float = 0.1) -> AsyncIterator[Kept]:
        def on_state(registered: bool, why: str) -> None:
            self.told.append((registered, why))

        def registering() -> RegisterWorker:
            self.tries += 1
            return registration(self.name)

        self.task = asyncio.create_task(
            keep_registered(
                self.client,
                registering,
                lambda: 3,
                heartbeat_s=heartbeat_s,
                on_state=on_state,
            )
        )
        try:
            yield self
        finally:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            await self.client.aclose()

    async def has_tried(self, times: int) -> bool:
        return self.tries >= times

    async def was_told(self, registered: bool) -> bool:
        assert self.task is not None
        if self.task.done():
            await self.task
        return bool(self.told) and self.told[-1][0] is registered


async def serves(client: ControllerClient) -> bool:
    try:
        return [r.worker_name for r in (await client.routes()).replicas] == [WORKER]
    except ControllerUnreachable:
        return False


def test_every_call_reaches_the_controller() -> None:
    async def scenario(url: str) -> None:
        client = ControllerClient(url + "/", TOKEN)
        await client.set_expected(["m", "n"])
        assert await client.heartbeat(WORKER, 0) is False
        await client.register(registration())
        assert await client.heartbeat(WORKER, 2) is True
        await client.report("g", {WORKER: 4})
        assert await client.drain(WORKER) == 4
        routes = await client.routes()
        assert routes.expected == ["m", "n"]
        assert routes.replicas[0].draining
        again = await client.routes(routes.rev, routes.epoch, wait_s=0.05)
        assert again.epoch == routes.epoch
        await client.unregister(WORKER)
        assert (await client.routes()).replicas == []
        await client.aclose()

    with in_thread(Controller(token=TOKEN)) as url:
        asyncio.run(scenario(url))


def test_a_refusal_says_why() -> None:
    async def scenario(url: str) -> None:
        client = ControllerClient(url, "wrong")
        with pytest.raises(ControllerRefused, match="invalid token") as caught:
            await client.register(registration())
        assert caught.value.status == 401
        assert "wrong" not in caught.value.message
        await client.aclose()

    with in_thread(Controller(token=TOKEN)) as url:
        asyncio.run(scenario(url))


def test_nobody_there_and_no_answer_are_both_unreachable() -> None:
    async def scenario(url: str, silent: str) -> None:
        for address in (url, silent):
            client = ControllerClient(address, timeout_s=0.3)
            with pytest.raises(ControllerUnreachable, match=address):
                await client.heartbeat(WORKER, 0)
            await client.aclose()

    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts in the kernel, answers never
        asyncio.run(
            scenario(f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{silent.getsockname()[1]}")
        )


def test_something_else_than_a_controller_is_told_apart() -> None:
    async def scenario(url: str) -> None:
        client = ControllerClient(url)
        with pytest.raises(ControllerRefused, match="is not a controller"):
            await client.heartbeat(WORKER, 0)
        await client.aclose()

    with fake_worker("m") as worker:  # answers any POST with a status
        asyncio.run(scenario(worker.url))


@pytest.mark.parametrize("url", ["", "127.0.0.1:21001", "ftp://127.0.0.1"])
def test_a_wrong_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="is not a valid URL"):
        ControllerClient(url)


def test_a_worker_waits_for_its_controller_and_says_so_once(tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        async with Kept(f"http://127.0.0.1:{port}").running() as worker:
            await eventually(lambda: worker.was_told(False))
            with process(tmp_path, port, token=TOKEN) as controller:
                await eventually(lambda: worker.was_told(True))
                assert [registered for registered, _ in worker.told] == [False, True]
                assert "does not answer" in worker.told[0][1]
                assert controller.url in worker.told[1][1]
                assert await serves(worker.client)

    asyncio.run(scenario(free_port()))


def test_a_worker_survives_its_controller(tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        async with Kept(f"http://127.0.0.1:{port}").running() as worker:
            with process(tmp_path, port, token=TOKEN) as first:
                await eventually(lambda: worker.was_told(True))
                epoch = (await worker.client.routes()).epoch
                first.end(signal.SIGKILL)
                await eventually(lambda: worker.was_told(False))
            with process(tmp_path, port, token=TOKEN):
                await eventually(lambda: worker.was_told(True))
                assert await serves(worker.client)
                routes = await worker.client.routes()
                assert routes.epoch != epoch
                assert not routes.settled

    asyncio.run(scenario(free_port()))


def test_a_worker_that_was_forgotten_registers_again_at_once() -> None:
    async def scenario(url: str) -> None:
        async with Kept(url).running() as worker:
            await eventually(lambda: worker.was_told(True))
            await worker.client.unregister(WORKER)
            await eventually(lambda: serves(worker.client))
            assert [registered for registered, _ in worker.told] == [True, False, True]

    with in_thread(Controller(token=TOKEN)) as url:
        asyncio.run(scenario(url))


def test_a_worker_that_ends_is_gone_at_once() -> None:
    async def scenario(url: str) -> None:
        async with Kept(url).running(heartbeat_s=60) as worker:
            await eventually(lambda: worker.was_told(True))
        client = ControllerClient(url, TOKEN)
        assert (await client.routes()).replicas == []
        await client.aclose()

    with in_thread(Controller(token=TOKEN)) as url:
        asyncio.run(scenario(url))


def test_a_refused_worker_keeps_asking_and_tells_why_once() -> None:
    async def scenario(url: str) -> None:
        async with Kept(url, token="wrong").running() as worker:
            await eventually(lambda: worker.has_tried(4))
            assert len(worker.told) == 1
            assert "401" in worker.told[0][1]

    with in_thread(Controller(token=TOKEN)) as url:
        asyncio.run(scenario(url))


def test_queue_lengths_travel_with_heartbeats() -> None:
    async def loaded(client: ControllerClient) -> bool:
        return [r.queue_length for r in (await client.routes()).replicas] == [3]

    async def scenario(url: str) -> None:
        async with Kept(url).running() as worker:
            await eventually(lambda: loaded(worker.client))

    with in_thread(Controller(token=TOKEN)) as url:
        asyncio.run(scenario(url))


def test_ending_does_not_wait_for_a_controller_that_hangs(tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        with process(tmp_path, port, token=TOKEN) as controller:
            worker = Kept(controller.url)
            async with worker.running(heartbeat_s=60):
                await eventually(lambda: worker.was_told(True))
                controller.popen.send_signal(signal.SIGSTOP)
                assert worker.task is not None
                worker.task.cancel()
                async with asyncio.timeout(15):
                    await asyncio.gather(worker.task, return_exceptions=True)

    asyncio.run(scenario(free_port()))
