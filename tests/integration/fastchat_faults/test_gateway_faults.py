"""FastChat's faults in serving that the gateway answers. Each test is named after what FastChat did."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.gateway.fakes import Bench, Client, Seen, Talk, ask, chat, running
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def module_bench() -> Iterator[Bench]:
    with running() as bench:
        yield bench


@pytest.fixture
def bench(module_bench: Bench) -> Iterator[Bench]:
    yield module_bench
    module_bench.clear()


def test_a_dead_worker_answers_500_for_as_long_as_it_is_listed(bench: Bench) -> None:
    """FastChat: 90-180 s of errors, though another worker of the model is well."""
    dead, well = bench.worker(), bench.worker()
    bench.serve(dead.replica("m"), well.replica("m"))
    dead.close()
    assert {chat(bench.port, "m").status for _ in range(20)} == {200}


def test_a_dead_worker_without_a_second_one_is_a_clean_503(bench: Bench) -> None:
    dead = bench.worker()
    bench.serve(dead.replica("m"))
    dead.close()
    answer = chat(bench.port, "m")
    assert (answer.status, answer.error["type"]) == (503, "server_error")
    assert int(answer.headers["retry-after"]) > 0


def test_a_worker_that_leaves_is_still_listed_in_models(bench: Bench) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    assert [model["id"] for model in ask(bench.port, "GET", "/v1/models").json["data"]] == ["m"]
    bench.serve()
    assert ask(bench.port, "GET", "/v1/models").json["data"] == []


def test_v1_models_empties_and_rebuilds_the_registry_on_each_call(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))
    bench.controller.calls.clear()
    with ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(lambda _: ask(bench.port, "GET", "/v1/models").json["data"], range(50)))
        chats = list(pool.map(lambda _: chat(bench.port, "m").status, range(50)))
    assert all([model["id"] for model in models] == ["m"] for models in lists)
    assert set(chats) == {200}
    assert not [call for call in bench.controller.calls if "models" in call or "refresh" in call]


def test_api_v1_skips_the_api_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-one\n")
    keys.chmod(0o600)
    with running("--api-keys-file", str(keys)) as bench:
        worker = bench.worker()
        bench.serve(worker.replica("m"))
        for path in (
            "/api/v1/chat/completions",
            "/v1/chat/completions",
            "/v1/embeddings",
            "/api/v1/token_check",
        ):
            assert ask(bench.port, "POST", path, {"model": "m"}).status == 401, path
        assert worker.seen == []
        with_key = {"Authorization": "Bearer sk-one"}
        assert ask(bench.port, "POST", "/api/v1/chat/completions", {"model": "m"}, with_key).status == 200


def test_there_is_no_health(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"), expected=["m"])
    health = ask(bench.port, "GET", "/health")
    assert (health.status, health.json["status"]) == (200, "ok")


def test_there_is_no_404_for_an_unknown_model(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))
    answer = chat(bench.port, "nobody")
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


def test_there_is_no_429(bench: Bench) -> None:
    """FastChat: requests beyond the limit pile up without bound."""
    done: list[bool] = []

    def behave(talk: Talk, seen: Seen) -> None:
        wait_until(lambda: done, 30)
        talk.reply({})

    bench.serve(bench.worker(behave).replica("m", max_concurrency=1))
    clients = [Client(bench.port) for _ in range(1 + 68)]
    for client in clients:
        client.post({"model": "m"})
    wait_until(lambda: bench.metric("waiting", model="m") == 68)
    answer = chat(bench.port, "m")
    assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
    assert int(answer.headers["retry-after"]) > 0
    done.append(True)
    assert {client.answer().status for client in clients} == {200}
    for client in clients:
        client.sock.close()


def test_every_error_is_400_with_a_private_body(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"), expected=["m", "later"])
    answers = {
        400: ask(bench.port, "POST", "/v1/chat/completions", b"{nonsense"),
        404: ask(bench.port, "GET", "/v1/nothing"),
        405: ask(bench.port, "GET", "/v1/chat/completions"),
        503: chat(bench.port, "later"),
    }
    for status, answer in answers.items():
        assert answer.status == status
        assert answer.error["message"]


def test_a_chat_takes_five_or_six_http_calls(bench: Bench) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    bench.controller.calls.clear()
    for _ in range(20):
        assert chat(bench.port, "m").status == 200
    assert len(worker.seen) == 20
    asked = [call for call in bench.controller.calls if not call.startswith(("/gateway_report", "/routes"))]
    assert asked == []


@pytest.mark.parametrize("stream", [False, True], ids=["not streamed", "streamed"])
def test_a_request_goes_on_after_its_client_left(bench: Bench, stream: bool) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.wait_for_peer_to_leave()

    worker = bench.worker(behave)
    bench.serve(worker.replica("m"))
    with Client(bench.port) as client:
        client.post({"model": "m", "stream": stream})
        wait_until(lambda: worker.seen)
    left = time.monotonic()
    wait_until(lambda: worker.left, 5)
    assert worker.left[0] - left < 3


def test_a_slot_is_leaked_by_an_odd_request(bench: Bench) -> None:
    """FastChat: ``temperature: null`` five times, and the worker hangs for ever."""

    def behave(talk: Talk, seen: Seen) -> None:
        value = seen.json.get("temperature", 1)
        if value is None:
            talk.reply({"error": {"message": "temperature"}}, 400)
        elif str(value).startswith("die"):
            talk.hang_up()
        else:
            talk.reply({})

    worker = bench.worker(behave)
    bench.serve(worker.replica("m", max_concurrency=1))
    for turn in range(6):
        assert chat(bench.port, "m", temperature=None).status == 400
        assert chat(bench.port, "m").status == 200
        # Of the same bytes the third would be refused unsent.
        assert chat(bench.port, "m", temperature=f"die {turn}").status in (500, 503)
        assert chat(bench.port, "m").status == 200


def test_one_stuck_worker_blocks_the_others(bench: Bench) -> None:
    stuck_until: list[bool] = []

    def stuck(talk: Talk, seen: Seen) -> None:
        wait_until(lambda: stuck_until, 30)
        talk.reply({})

    bench.serve(bench.worker(stuck).replica("slow"), bench.worker().replica("fast"))
    with Client(bench.port) as client:
        client.post({"model": "slow"})
        assert {chat(bench.port, "fast").status for _ in range(10)} == {200}
        stuck_until.append(True)
        assert client.answer().status == 200


def test_a_request_for_one_model_is_answered_by_another(bench: Bench) -> None:
    one, two = bench.worker(), bench.worker()
    bench.serve(one.replica("a"), two.replica("b"))
    for name, worker in (("a", one), ("b", two)) * 5:
        assert chat(bench.port, name).json["worker"] == worker.url
    assert {seen.json["model"] for seen in one.seen} == {"a"}
    assert {seen.json["model"] for seen in two.seen} == {"b"}
