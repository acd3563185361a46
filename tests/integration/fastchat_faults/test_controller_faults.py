"""Faults of FastChat's controller, a test each: the name says what FastChat did, the body what happens here."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from llmlaunch.common.heartbeat import LEASE_S
from llmlaunch.controller.app import Controller
from llmlaunch.controller.client import ControllerClient, keep_registered
from llmlaunch.controller.wire import RegisterWorker, WorkerStatus
from tests.integration.controller.support import (
    TOKEN,
    Api,
    FakeWorker,
    Process,
    fake_worker,
    in_thread,
    process,
)
from tests.support.ports import free_port
from tests.support.waiting import wait_until


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Process]:
    """``llmlaunch controller`` by hand, without a token, as FastChat's users start theirs."""
    with process(tmp_path, free_port()) as controller:
        controller.wait_ready()
        yield controller


@pytest.fixture
def api(controller: Process) -> Iterator[Api]:
    with Api(controller.url) as api:
        yield api


@contextlib.contextmanager
def kept_registered(url: str, worker: FakeWorker) -> Iterator[list[tuple[bool, str]]]:
    """``worker`` as our own worker does it: keep_registered beside its server. Gives what it was told."""
    told: list[tuple[bool, str]] = []
    stop = threading.Event()

    def on_state(registered: bool, why: str) -> None:
        told.append((registered, why))

    async def life() -> None:
        client = ControllerClient(url)
        status = WorkerStatus(model_names=worker.models)
        request = RegisterWorker(worker_name=worker.url, worker_status=status)
        loop = keep_registered(client, lambda: request, lambda: 0, heartbeat_s=0.2, on_state=on_state)
        task = asyncio.create_task(loop)
        await asyncio.to_thread(stop.wait)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(life()))
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def serves(api: Api, models: list[str]) -> bool:
    return api.models() == models


# -- launching -------------------------------------------------------------------------------------------------------


def test_a_worker_exits_when_the_controller_is_not_up_yet(tmp_path: Path) -> None:
    """Here it waits, says so, and registers as soon as there is one."""
    port = free_port()
    with (
        fake_worker("m") as worker,
        kept_registered(f"http://127.0.0.1:{port}", worker) as told,
        contextlib.ExitStack() as late,
    ):
        wait_until(lambda: told, what="the worker notices that nobody is there")
        assert told[0][0] is False
        controller = late.enter_context(process(tmp_path, port))
        wait_until(lambda: told[-1][0], 30, what="the worker registers")
        with Api(controller.url) as api:
            assert api.models() == ["m"]


def test_a_worker_registers_before_its_own_port_is_bound(api: Api) -> None:
    """Here an address that does not answer is refused, and the refusal says what was tried."""
    address = f"http://127.0.0.1:{free_port()}"
    response = api.register(address, "m")
    assert response.status_code == 422
    assert address in response.json()["error"]["message"]
    assert api.models() == []


def test_two_workers_register_under_one_address_and_traffic_of_one_goes_to_the_other(api: Api) -> None:
    """The second worker still believes to be at the first one's port: it is refused, the first one keeps its place."""
    with fake_worker("first") as worker:
        assert api.register(worker.url, "first").status_code == 200
        assert api.register(worker.url, "second").status_code == 422
        assert api.models() == ["first"]
        assert api.ok("/get_worker_address", {"model": "second"}) == {"address": ""}


def test_the_controller_ignores_sigint(controller: Process) -> None:
    assert controller.end(signal.SIGINT) == 130
    assert "Traceback" not in controller.text()


# -- serving ---------------------------------------------------------------------------------------------------------


def test_a_dead_worker_is_listed_for_90_to_180_seconds() -> None:
    """Here a worker that stops to heartbeat is forgotten after its lease; its successor need not wait for that."""
    assert LEASE_S <= 15
    fast = Controller(clock=lambda: time.monotonic() * 8)
    with in_thread(fast) as url, Api(url) as api:
        with fake_worker("m") as worker:
            api.register(worker.url, "m")
            assert api.models() == ["m"]
        wait_until(lambda: api.models() == [], 30, what="the lease runs out")


def test_a_worker_that_ends_stays_listed(api: Api) -> None:
    with fake_worker("m") as worker, kept_registered(api.url, worker):
        wait_until(lambda: api.models() == ["m"])
    assert api.models() == []


def test_a_worker_is_lost_when_the_controller_restarts(tmp_path: Path) -> None:
    port = free_port()
    with fake_worker("m") as worker, kept_registered(f"http://127.0.0.1:{port}", worker):
        for _ in range(2):
            with process(tmp_path, port) as controller:
                controller.wait_ready()
                with Api(controller.url) as api:
                    wait_until(partial(serves, api, ["m"]), 20)
                controller.end(signal.SIGKILL)


def test_one_stuck_worker_blocks_the_whole_controller(api: Api) -> None:
    """A worker that accepts and never answers, registered and asked again: everybody else is served meanwhile."""
    with fake_worker("stuck") as stuck, fake_worker("m") as worker:
        assert api.register(stuck.url, "stuck").status_code == 200
        stuck.manner = "stuck"
        with concurrent.futures.ThreadPoolExecutor() as pool:
            refreshing = pool.submit(httpx.post, f"{api.url}/refresh_all_workers", timeout=30)
            wait_until(lambda: stuck.asked == 2, what="the stuck worker is asked again")
            assert api.register(worker.url, "m").status_code == 200
            assert api.ok("/receive_heart_beat", {"worker_name": worker.url}) == {"exist": True}
            assert api.models() == ["m", "stuck"]
            assert api.ok("/get_worker_address", {"model": "m"}) == {"address": worker.url}
            assert api.routes()["replicas"]
            assert not refreshing.done()
            assert refreshing.result(30).status_code == 200


def test_listing_models_empties_and_rebuilds_the_registry(api: Api) -> None:
    """Here it is a read: no worker is asked, no name is missing for a moment, no revision is made."""
    with fake_worker("m") as worker, concurrent.futures.ThreadPoolExecutor(8) as pool:
        api.register(worker.url, "m")
        asked, rev = worker.asked, api.routes()["rev"]
        with httpx.Client(base_url=api.url, trust_env=False) as http:
            answers = list(pool.map(lambda _: http.post("/list_models").json(), range(100)))
        assert all(answer == {"models": ["m"]} for answer in answers)
        assert worker.asked == asked
        assert api.routes()["rev"] == rev


def test_only_one_of_two_equal_workers_is_used(api: Api) -> None:
    """FastChat's shortest queue gave every tie to the worker that registered first."""
    with fake_worker("m") as one, fake_worker("m") as other:
        for worker in (one, other):
            assert api.register(worker.url, "m").status_code == 200
        given = [api.ok("/get_worker_address", {"model": "m"})["address"] for _ in range(20)]
    assert given.count(one.url) == given.count(other.url) == 10


def test_registration_answers_200_even_when_it_failed(api: Api) -> None:
    with fake_worker(manner="error") as worker:
        response = api.register(worker.url)
    assert response.status_code == 422
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_registration_is_open_to_anyone(tmp_path: Path) -> None:
    """With a token, nobody without it changes anything; without one, nobody from another machine does."""
    with (
        process(tmp_path, free_port(), token=TOKEN) as controller,
        fake_worker("m") as worker,
        Api(controller.url) as stranger,
        Api(controller.url, TOKEN) as owner,
    ):
        controller.wait_ready()
        assert stranger.register(worker.url, "m").status_code == 401
        assert worker.asked == 0
        assert owner.register(worker.url, "m").status_code == 200
        assert stranger.post("/unregister_worker", {"worker_name": worker.url}).status_code == 401
        assert owner.models() == ["m"]


def test_registration_reaches_any_address_ssrf(api: Api) -> None:
    """The controller connects to nothing that the caller could not be itself."""
    with socket.create_server(("127.0.0.1", 0)) as internal:
        internal.settimeout(0.2)
        port = internal.getsockname()[1]
        for address in (
            f"http://user@127.0.0.1:{port}",
            f"http://127.0.0.1:{port}/latest/meta-data?",
            f"gopher://127.0.0.1:{port}",
            f"http://2130706433:{port}",
            "http://169.254.169.254",
            "http://[::ffff:169.254.169.254]",
            "http://10.0.0.1:6379",
        ):
            response = api.register(address, "m")
            assert response.status_code in (403, 422), response.text
        with pytest.raises(TimeoutError):
            internal.accept()


def test_models_can_be_spoofed(api: Api) -> None:
    """Somebody registers a running worker under a model it does not serve."""
    with fake_worker("tiny") as worker:
        assert api.register(worker.url, "tiny").status_code == 200
        assert api.register(worker.url, "gpt-5").status_code == 422
        assert api.register(worker.url, "tiny", "gpt-5").status_code == 422
    assert api.models() == ["tiny"]
