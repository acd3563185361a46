"""The controller over real sockets."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from llmlaunch.controller.app import Controller
from llmlaunch.controller.client import ControllerClient
from llmlaunch.controller.tokens import gateway_token, replica_token
from llmlaunch.controller.wire import RegisterWorker, WorkerStatus
from tests.integration.controller.support import TOKEN, Api, fake_worker, in_thread
from tests.support.ports import free_port
from tests.support.waiting import wait_until


@pytest.fixture
def api() -> Iterator[Api]:
    """A controller without a token."""
    with in_thread(Controller(probe_timeout_s=1.0)) as url, Api(url) as api:
        yield api


@pytest.fixture(scope="module")
def unchanged() -> Iterator[Api]:
    """A controller for requests that change nothing, shared by them."""
    with in_thread(Controller()) as url, Api(url) as api:
        yield api
        assert api.routes()["replicas"] == []
        assert api.routes()["expected"] == []


@pytest.fixture
def guarded() -> Iterator[Api]:
    """A controller with a token, seen by somebody who has it."""
    with in_thread(Controller(token=TOKEN, probe_timeout_s=1.0)) as url, Api(url, TOKEN) as api:
        yield api


@pytest.fixture
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(64) as executor:
        yield executor


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


# -- registration ----------------------------------------------------------------------------------------------------


def test_a_worker_on_this_machine_registers_without_a_token(api: Api) -> None:
    with fake_worker("m", "n") as worker:
        assert api.register(worker.url, "m", "n").json() is None
    assert api.models() == ["m", "n"]
    assert api.ok("/get_worker_address", {"model": "n"}) == {"address": worker.url}
    assert api.ok("/get_worker_address", {"model": "other"}) == {"address": ""}


@pytest.mark.parametrize("manner", ["ok", "chunked"])
def test_a_worker_that_sends_no_status_is_asked(api: Api, manner: str) -> None:
    with fake_worker("m", manner=manner) as worker:
        assert api.register(worker.url + "/").status_code == 200
        assert api.routes()["replicas"][0]["worker_name"] == worker.url
    assert api.models() == ["m"]


def test_a_worker_that_serves_something_else_than_registered_is_refused(api: Api) -> None:
    with fake_worker("tiny") as worker:
        response = api.register(worker.url, "gpt-5")
    assert response.status_code == 422
    assert "'tiny'" in error_of(response)["message"]
    assert "'gpt-5'" in error_of(response)["message"]
    assert api.models() == []


@pytest.mark.parametrize("manner", ["error", "text", "huge", "not_http"])
def test_an_address_that_does_not_answer_as_a_worker_is_refused(api: Api, manner: str) -> None:
    with fake_worker("m", manner=manner) as worker:
        response = api.register(worker.url, "m")
    assert response.status_code == 422
    assert worker.url in error_of(response)["message"]
    assert error_of(response)["param"] == "worker_name"
    assert api.models() == []


def test_an_address_where_nobody_listens_is_refused(api: Api) -> None:
    response = api.register(f"http://127.0.0.1:{free_port()}", "m")
    assert response.status_code == 422
    assert "could not be asked" in error_of(response)["message"]


def test_redirects_are_not_followed(api: Api) -> None:
    with (
        fake_worker("m") as target,
        fake_worker(manner="redirect", target=f"{target.url}/worker_get_status") as worker,
    ):
        assert api.register(worker.url, "m").status_code == 422
        assert worker.asked == 1
        assert target.asked == 0


def test_who_has_the_token_may_vouch_for_an_engine_that_cannot_be_asked(guarded: Api) -> None:
    assert guarded.register("http://127.0.0.1:9", "m", verified=True, engine="vllm").status_code == 200
    assert guarded.routes()["replicas"][0]["engine"] == "vllm"


def test_vouching_without_the_token_proves_nothing(api: Api) -> None:
    with fake_worker("tiny") as worker:
        assert api.register(worker.url, "m", verified=True).status_code == 422
        assert worker.asked == 1


def test_a_worker_that_left_while_it_was_asked_is_not_registered(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """Its unregistering may have come before: it would be listed until its lease is over."""
    caplog.set_level(logging.INFO, "llmlaunch")
    with fake_worker("m", manner="late") as worker:
        with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2]))) as leaving:
            body = json.dumps({"worker_name": worker.url}).encode()
            head = f"POST /register_worker HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            leaving.sendall(head.encode() + body)
            wait_until(lambda: worker.asked == 1)
        worker.release.set()
        wait_until(lambda: "disconnected before it was registered" in caplog.text)
    assert api.models() == []


def test_the_token_is_asked_for_everywhere_that_matters(guarded: Api) -> None:
    nobody, liar = Api(guarded.url), Api(guarded.url, "wrong")
    calls = {
        "/register_worker": {"worker_name": "http://127.0.0.1:9"},
        "/receive_heart_beat": {"worker_name": "http://127.0.0.1:9"},
        "/unregister_worker": {"worker_name": "http://127.0.0.1:9"},
        "/drain_worker": {"worker_name": "http://127.0.0.1:9"},
        "/set_expected": {"names": ["m"]},
        "/gateway_report": {"gateway": "g", "in_flight": {}},
        "/refresh_all_workers": None,
    }
    for who in (nobody, liar):
        answers = [who.post(path, body) for path, body in calls.items()] + [who.http.get("/routes")]
        for answer in answers:
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert error_of(answer)["type"] == "authentication_error"
            assert TOKEN not in answer.text
        who.http.close()
    assert guarded.routes()["expected"] == []


def from_elsewhere(controller: Controller, path: str, body: Any, client: str = "10.1.2.3") -> httpx.Response:
    """What a caller on another machine is answered."""

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(controller.app(), client=(client, 40000))
        async with httpx.AsyncClient(transport=transport, base_url="http://controller") as http:
            return await http.post(path, json=body)

    return asyncio.run(call())


def test_without_a_token_other_machines_are_refused() -> None:
    answer = from_elsewhere(Controller(), "/register_worker", {"worker_name": "http://10.1.2.3:21002"})
    assert answer.status_code == 403
    assert "LLMLAUNCH_TOKEN" in error_of(answer)["message"]
    assert "--open-registration" in error_of(answer)["message"]


@pytest.mark.parametrize("path", ["/register_worker", "/unregister_worker", "/drain_worker"])
def test_an_open_registry_lets_callers_speak_for_their_own_address_only(path: str) -> None:
    """Otherwise anybody could make the controller, and gateways, connect to any place it can reach."""
    with fake_worker("m") as victim:
        for address in (victim.url, "http://10.9.9.9:80", "http://metadata.internal"):
            answer = from_elsewhere(Controller(open_registration=True), path, {"worker_name": address})
            assert answer.status_code == 403, answer.text
        assert victim.asked == 0


def test_a_page_in_a_browser_changes_nothing(api: Api) -> None:
    answer = api.post("/set_expected", {"names": ["x"]}, Origin="https://evil.example")
    assert answer.status_code == 403
    assert api.routes()["expected"] == []


def test_what_was_registered_with_the_token_changes_only_with_it() -> None:
    with in_thread(Controller(token=TOKEN, open_registration=True)) as url, fake_worker("m") as worker:
        owner, other = Api(url, TOKEN), Api(url)
        assert owner.register(worker.url, "m").status_code == 200
        name = {"worker_name": worker.url}
        assert other.register(worker.url, "m", engine_model="evil").status_code == 403
        assert other.post("/drain_worker", name).status_code == 403
        assert other.post("/unregister_worker", name).status_code == 403
        assert owner.models() == ["m"]
        assert owner.ok("/unregister_worker", name) == {"exist": True}
        assert other.register(worker.url, "m").status_code == 200  # now the address is free
        owner.http.close()
        other.http.close()


def test_a_replicas_token_speaks_for_its_address_and_names_alone() -> None:
    with in_thread(Controller(token=TOKEN)) as url, fake_worker("m") as own, fake_worker("n") as other:
        owner = Api(url, TOKEN)
        assert owner.register(other.url, "n").status_code == 200
        replica = Api(url, replica_token(TOKEN, own.url, ["m"]))
        refused = [
            replica.register(other.url, "n"),
            replica.register(other.url, "m"),
            replica.register(own.url, "n", verified=True),
            replica.register(own.url, "m", "n", verified=True),
            replica.post("/unregister_worker", {"worker_name": other.url}),
            replica.post("/receive_heart_beat", {"worker_name": other.url, "queue_length": 1000}),
            replica.post("/drain_worker", {"worker_name": other.url}),
            replica.post("/set_expected", {"names": []}),
            replica.post("/gateway_report", {"gateway": "g", "in_flight": {other.url: 9}}),
            replica.post("/refresh_all_workers"),
            replica.http.get("/routes"),
        ]
        assert [(a.status_code, error_of(a)["code"]) for a in refused] == [(403, "forbidden")] * len(refused)
        assert owner.models() == ["n"]
        own.models = ["n"]  # it answers for another model's name, and is not asked only
        assert replica.register(own.url).status_code == 403
        own.models = ["m"]
        assert replica.register(own.url, "m", verified=True).status_code == 200
        assert own.asked == 2, "it vouches for nobody, itself included"
        assert replica.ok("/receive_heart_beat", {"worker_name": own.url}) == {"exist": True}
        own.models = ["m", "n"]
        assert owner.post("/refresh_all_workers").status_code == 200
        rows = {row["worker_name"]: row["model_names"] for row in owner.routes()["replicas"]}
        assert rows == {own.url: ["m"], other.url: ["n"]}
        assert replica.ok("/unregister_worker", {"worker_name": own.url}) == {"exist": True}
        for api in (owner, replica):
            api.http.close()


def test_a_gateways_token_reads_the_routes_and_reports() -> None:
    with in_thread(Controller(token=TOKEN)) as url:
        gateway = Api(url, gateway_token(TOKEN))
        assert gateway.routes()["replicas"] == []
        assert gateway.ok("/gateway_report", {"gateway": "g", "in_flight": {}}) is None
        assert gateway.register("http://127.0.0.1:9", "m", verified=True).status_code == 403
        assert gateway.post("/set_expected", {"names": []}).status_code == 403
        gateway.http.close()


def test_a_stranger_under_open_registration_cannot_take_a_name_of_the_manifest() -> None:
    open_one = Controller(token=TOKEN, open_registration=True, supervised=True)
    with in_thread(open_one) as url, fake_worker("m") as liar, fake_worker("x") as guest:
        owner, stranger = Api(url, TOKEN), Api(url)
        assert stranger.register(liar.url, "m").status_code == 200
        assert owner.models() == [], "nobody knows yet whose the name is"
        assert owner.post("/set_expected", {"names": ["m"]}).status_code == 200
        assert owner.models() == []
        answer = stranger.register(liar.url, "m")
        assert (answer.status_code, error_of(answer)["code"]) == (403, "forbidden")
        assert "is a name in this deployment's manifest" in error_of(answer)["message"]
        assert stranger.post("/set_expected", {"names": []}).status_code == 401
        report = {"gateway": "g", "in_flight": {liar.url: 9}}
        assert stranger.post("/gateway_report", report).status_code == 401
        assert stranger.register(guest.url, "x").status_code == 200
        assert owner.models() == ["x"]
        for api in (owner, stranger):
            api.http.close()


# -- nothing waits for anybody ---------------------------------------------------------------------------------------


def test_stuck_workers_hold_up_nobody_but_themselves(
    api: Api, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    with fake_worker("stuck", manner="stuck") as stuck, fake_worker("m") as worker:
        with httpx.Client(base_url=api.url, timeout=20, trust_env=False) as http:
            body = {"worker_name": stuck.url}
            waiting = [pool.submit(http.post, "/register_worker", json=body) for _ in range(20)]
            wait_until(lambda: stuck.asked == 20, what="the stuck worker is asked")
            assert api.register(worker.url, "m").status_code == 200
            assert api.models() == ["m"]
            assert not any(call.done() for call in waiting)
            answers = [call.result(15) for call in waiting]
        assert {a.status_code for a in answers} == {422}
        assert "did not answer within 1 s" in error_of(answers[0])["message"]


def test_refreshing_asks_all_and_waits_for_no_stuck_one_longer_than_its_time(
    guarded: Api, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    with fake_worker("m") as worker, fake_worker("s") as stuck:
        for w in (worker, stuck):
            assert guarded.register(w.url).status_code == 200
        assert guarded.register("http://127.0.0.1:9", "vouched", verified=True).status_code == 200
        gone = f"http://127.0.0.1:{free_port()}"
        with fake_worker("gone") as leaving:
            gone = leaving.url
            assert guarded.register(gone, "gone", check_heart_beat=False).status_code == 200
        worker.models, stuck.manner = ["m", "m-new"], "stuck"
        refreshing = pool.submit(guarded.post, "/refresh_all_workers")
        wait_until(lambda: stuck.asked == 2, what="the stuck worker is asked again")
        assert "s" in guarded.models()  # the table is never emptied meanwhile
        assert refreshing.result(15).status_code == 200
    # Leases decide about the one that hangs; the one without a lease and without an answer is gone.
    assert guarded.models() == ["m", "m-new", "s", "vouched"]


# -- leases, drains, routes ------------------------------------------------------------------------------------------


def test_a_silent_worker_is_forgotten() -> None:
    with in_thread(Controller(clock=lambda: time.monotonic() * 8)) as url, fake_worker("m") as worker:
        api = Api(url)
        api.register(worker.url, "m")
        wait_until(lambda: not api.routes()["replicas"], 30, what="the lease runs out")
        assert api.ok("/receive_heart_beat", {"worker_name": worker.url}) == {"exist": False}
        assert api.routes()["settled"]
        api.http.close()


def test_heartbeats_carry_queue_lengths_into_the_routes(api: Api) -> None:
    with fake_worker("m") as worker:
        api.register(worker.url, "m")
        assert api.ok("/receive_heart_beat", {"worker_name": worker.url, "queue_length": 7}) == {
            "exist": True
        }
        wait_until(lambda: api.routes()["replicas"][0]["queue_length"] == 7)
        assert api.ok("/worker_get_status") == {"model_names": ["m"], "speed": 1.0, "queue_length": 7}


def test_draining_and_leaving(api: Api) -> None:
    with fake_worker("m") as worker:
        name = {"worker_name": worker.url}
        assert api.ok("/drain_worker", name) == {"exist": False, "in_flight": 0}
        api.register(worker.url, "m")
        api.ok("/gateway_report", {"gateway": "g", "in_flight": {worker.url: 2}})
        assert api.ok("/drain_worker", name) == {"exist": True, "in_flight": 2}
        assert api.routes()["replicas"][0]["draining"]
        assert api.models() == []
        api.ok("/gateway_report", {"gateway": "g", "in_flight": {}})
        assert api.ok("/drain_worker", name) == {"exist": True, "in_flight": 0}
        assert api.ok("/unregister_worker", name) == {"exist": True}
        assert api.ok("/unregister_worker", name) == {"exist": False}


def test_names_by_kind(api: Api) -> None:
    with fake_worker("text") as text, fake_worker("sight") as sight:
        api.register(text.url, "text")
        api.register(sight.url, "sight", multimodal=True)
    assert api.models() == ["sight", "text"]
    assert api.ok("/list_language_models") == {"models": ["text"]}
    assert api.ok("/list_multimodal_models") == {"models": ["sight"]}
    assert api.http.get("/test_connection").json() == "success"
    assert api.http.get("/health").json()["workers"] == 2


def test_a_poll_is_answered_when_its_time_is_over(api: Api) -> None:
    routes = api.routes()
    again = api.routes(since=routes["rev"], epoch=routes["epoch"], wait=0.05)
    assert again == routes


@pytest.mark.parametrize("params", [{"epoch": "another life"}, {"since": -1}, {}])
def test_a_poll_with_nothing_to_compare_is_answered_at_once(api: Api, params: dict[str, Any]) -> None:
    rev = api.routes()["rev"]
    assert api.routes(**{"since": rev, "wait": 50, **params})["rev"] == rev


def test_a_change_wakes_everybody_who_polls() -> None:
    async def scenario(url: str, worker: str) -> None:
        client = ControllerClient(url, TOKEN)
        before = await client.routes()
        polls = [asyncio.create_task(client.routes(before.rev, before.epoch, wait_s=50)) for _ in range(60)]
        _, pending = await asyncio.wait(polls, timeout=0.3)
        assert len(pending) == 60
        status = WorkerStatus(model_names=["m"])
        await client.register(RegisterWorker(worker_name=worker, worker_status=status, verified=True))
        async with asyncio.timeout(10):  # far below the 50 s they would wait otherwise
            answers = await asyncio.gather(*polls)
        assert {a.replicas[0].worker_name for a in answers} == {worker}
        assert {a.rev for a in answers} == {before.rev + 1}
        await client.aclose()

    with in_thread(Controller(token=TOKEN)) as url:
        asyncio.run(scenario(url, "http://127.0.0.1:9"))


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/register_worker", b"", 400, None),
        ("/register_worker", b"{", 400, None),
        ("/register_worker", b'{"worker_name": "\xff"}', 400, None),
        ("/register_worker", b"[]", 422, None),
        ("/register_worker", b"{}", 422, "worker_name"),
        ("/register_worker", b'{"worker_name": 5}', 422, "worker_name"),
        ("/register_worker", b'{"worker_name": "ftp://x:1"}', 422, "worker_name"),
        (
            "/register_worker",
            b'{"worker_name": "http://127.0.0.1:1", "worker_status": {"model_names": []}}',
            422,
            "worker_status.model_names",
        ),
        (
            "/register_worker",
            b'{"worker_name": "http://127.0.0.1:1", "worker_status": {"model_names": ["m"], "speed": 0}}',
            422,
            "worker_status.speed",
        ),
        ("/receive_heart_beat", b'{"worker_name": "x", "queue_length": -1}', 422, "queue_length"),
        ("/receive_heart_beat", b'{"worker_name": "x"}', 422, "worker_name"),
        ("/gateway_report", b'{"gateway": "g", "in_flight": {"w": -2}}', 422, "in_flight.w"),
        ("/set_expected", b'{"names": "m"}', 422, "names"),
        ("/get_worker_address", b"{}", 422, "model"),
        ("/set_expected", b'{"names": ["' + b"x" * (2 << 20) + b'"]}', 413, None),
        ("/nothing", b"{}", 404, None),
        ("/routes", b"{}", 405, None),
        ("/worker_generate_stream", b"{}", 404, None),
    ],
)
def test_bad_requests_get_an_envelope(
    unchanged: Api, path: str, body: bytes, status: int, param: str | None
) -> None:
    response = unchanged.http.post(path, content=body)
    assert response.status_code == status, response.text
    assert error_of(response)["type"] == "invalid_request_error"
    assert error_of(response)["param"] == param


@pytest.mark.parametrize("params", [{"since": "x"}, {"wait": "soon"}, {"wait": "nan"}])
def test_bad_numbers_in_a_poll_get_an_envelope(unchanged: Api, params: dict[str, str]) -> None:
    response = unchanged.http.get("/routes", params=params)
    assert response.status_code == 422
    assert error_of(response)["param"] == next(iter(params))


def test_a_wrong_method_is_told_which_one_is_right(unchanged: Api) -> None:
    response = unchanged.http.get("/register_worker")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    error_of(response)
