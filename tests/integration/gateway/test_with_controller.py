"""The gateway and the real controller, as ``up`` runs them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from llmlaunch.controller.client import ControllerClient, keep_registered
from llmlaunch.controller.wire import RegisterWorker, WorkerStatus
from tests.integration.gateway.fakes import (
    Bench,
    Client,
    FakeController,
    FakeWorker,
    GatewayProcess,
    Seen,
    Talk,
    ask,
    chat,
)
from tests.support.ports import free_port
from tests.support.waiting import wait_until

TOKEN = "a-token-of-this-test"


class RealController:
    def __init__(self, port: int | None = None, *options: str) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "llmlaunch", "controller", "--port", str(self.port), *options],
            env={**os.environ, "LLMLAUNCH_TOKEN": TOKEN},
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def call(self, path: str, value: object = None) -> Any:
        data = None if value is None else json.dumps(value).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read())

    def until_up(self) -> RealController:
        def up() -> bool:
            try:
                return bool(self.call("/health"))
            except OSError:
                return False

        wait_until(up, 20)
        return self

    def register(self, address: str, *names: str, **more: Any) -> None:
        status = {"model_names": list(names), "speed": 1, "queue_length": 0}
        self.call("/register_worker", {
            "worker_name": address, "check_heart_beat": True, "worker_status": status, "verified": True, **more,
        })  # fmt: skip

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def together() -> Iterator[tuple[RealController, GatewayProcess, Bench]]:
    controller = RealController()
    gateway = GatewayProcess(controller.url, env={"LLMLAUNCH_TOKEN": TOKEN})
    fake = FakeController()
    bench = Bench(fake, gateway)
    try:
        gateway.until_up()
        controller.until_up()
        yield controller, gateway, bench
    finally:
        for worker in bench.workers:
            worker.close()
        fake.close()
        try:
            assert gateway.stop() == 0
        finally:
            if controller.process.poll() is None:
                controller.kill()


def test_from_registration_to_drain(together: tuple[RealController, GatewayProcess, Bench]) -> None:
    controller, gateway, bench = together
    ready: list[bool] = []

    def behave(talk: Talk, seen: Seen) -> None:
        if seen.json.get("hold"):
            wait_until(lambda: ready)
        talk.reply({"by": talk.worker.url})

    worker = bench.worker(behave)
    controller.call("/set_expected", {"names": ["m", "n"]})
    wait_until(lambda: chat(gateway.port, "m").status == 503)
    wait_until(lambda: chat(gateway.port, "nobody").status == 404)
    controller.register(worker.url, "m", max_concurrency=3)
    gateway.until_serving("m")
    assert chat(gateway.port, "m").json == {"by": worker.url}
    health = ask(gateway.port, "GET", "/health").json
    assert (health["status"], health["names_ready"], health["names_expected"]) == ("degraded", 1, 2)
    with Client(gateway.port) as client:
        client.post({"model": "m", "hold": True})
        drain = {"worker_name": worker.url}
        wait_until(lambda: bench.metric("in_flight", replica=worker.url) == 1)
        controller.call("/drain_worker", drain)
        wait_until(lambda: chat(gateway.port, "m").status == 503)
        wait_until(lambda: controller.call("/drain_worker", drain)["in_flight"] == 1)
        ready.append(True)
        assert client.answer().status == 200
        wait_until(lambda: controller.call("/drain_worker", drain)["in_flight"] == 0)


def test_a_controller_that_is_killed_and_comes_back(
    together: tuple[RealController, GatewayProcess, Bench],
) -> None:
    controller, gateway, bench = together
    old, new = bench.worker(), bench.worker()
    controller.register(old.url, "m")
    gateway.until_serving("m")
    controller.kill()
    assert chat(gateway.port, "m").status == 200
    again = RealController(controller.port)
    try:
        again.until_up()
        again.register(new.url, "n")
        gateway.until_serving("m", "n")
        assert chat(gateway.port, "m").status == chat(gateway.port, "n").status == 200
    finally:
        again.kill()


class Registered(threading.Thread):
    """A worker that keeps itself registered, as the built-in engine does."""

    def __init__(self, controller_url: str, address: str) -> None:
        super().__init__(daemon=True)
        self._controller_url, self._address = controller_url, address
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._keep())
        self._loop.close()

    async def _keep(self) -> None:
        client = ControllerClient(self._controller_url, TOKEN, timeout_s=2)
        status = WorkerStatus(model_names=["m"])
        row = RegisterWorker(worker_name=self._address, worker_status=status, verified=True)
        task = asyncio.create_task(
            keep_registered(client, lambda: row, lambda: 0, heartbeat_s=0.2, on_state=lambda *_: None)
        )
        await self._end.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()

    def end(self) -> None:
        if self.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self.join(10)


@pytest.mark.parametrize(
    "order", [*itertools.permutations(("controller", "gateway", "worker"))], ids=" ".join
)
def test_they_find_each_other_in_any_order(order: tuple[str, ...]) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        for who in order:
            if who == "controller":
                controller = RealController(port)
                stack.callback(controller.kill)
                controller.until_up()
            elif who == "worker":
                worker = FakeWorker()
                stack.callback(worker.close)
                registered = Registered(url, worker.url)
                registered.start()
                stack.callback(registered.end)
            else:
                gateway = GatewayProcess(url, env={"LLMLAUNCH_TOKEN": TOKEN})
                stack.callback(gateway.stop)
                gateway.until_up()
        gateway.until_serving("m")
        assert chat(gateway.port, "m").status == 200
        registered.end()
        wait_until(lambda: chat(gateway.port, "m").status in (404, 503))
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log


def _is_served(gateway: GatewayProcess, name: str) -> bool:
    return chat(gateway.port, name).status == 200


def test_a_change_reaches_the_gateway_while_it_waits_for_one(
    together: tuple[RealController, GatewayProcess, Bench],
) -> None:
    """Aimed at 50 ms; a busy machine gets more, but no poll of half a minute is waited for."""
    controller, gateway, bench = together
    times = []
    for number in range(10):
        worker = bench.worker()
        began = time.monotonic()
        controller.register(worker.url, f"m{number}")
        wait_until(partial(_is_served, gateway, f"m{number}"), 5, every_s=0.001)
        times.append(time.monotonic() - began)
    print(f"median {statistics.median(times) * 1000:.0f} ms from the call to an answer")
    assert max(times) < 5
