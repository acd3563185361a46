"""What a key may use, and that one client's crowd does not keep another one out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.fakes import Answer, Bench, Client, Seen, Talk, ask, running
from tests.integration.gateway.test_process import bearer
from tests.integration.gateway.test_queue import Gate
from tests.support.waiting import wait_until

KEYS = """
free: sk-free
other: sk-other
slow: sk-slow rpm=3
one: sk-one concurrency=1
few: sk-few tpm=5
some: sk-some models=m,x
urgent: sk-urgent priority=-5
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Path]]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEYS)
    keys.chmod(0o600)
    with running("--api-keys-file", str(keys)) as bench:
        yield bench, keys


@pytest.fixture
def bench(shared: tuple[Bench, Path]) -> Iterator[Bench]:
    yield shared[0]
    shared[0].clear()


def chat(bench: Bench, key: str, model: str = "m", **more: Any) -> Answer:
    return ask(bench.port, "POST", "/v1/chat/completions", {"model": model, **more}, bearer(f"sk-{key}"))


def post(bench: Bench, key: str, number: int) -> Client:
    client = Client(bench.port, timeout=30)
    client.post({"model": "m", "n": number}, extra=f"authorization: Bearer sk-{key}\r\n")
    return client


def test_requests_a_minute(bench: Bench) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    assert [chat(bench, "slow").status for _ in range(3)] == [200] * 3
    refused = chat(bench, "slow")
    assert (refused.status, refused.error["code"], refused.error["type"]) == (
        429,
        "rate_limit_exceeded",
        "requests",
    )
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert chat(bench, "free").status == 200
    assert len(worker.seen) == 4
    assert ask(bench.port, "GET", "/v1/models", headers=bearer("sk-slow")).status == 200
    assert bench.metric("limited_total", key="slow", limit="requests") == 1


def test_requests_at_a_time_those_that_wait_included(bench: Bench) -> None:
    gate = Gate()
    bench.serve(bench.worker(gate).replica("m", max_concurrency=1))
    first = post(bench, "free", 0)
    wait_until(lambda: gate.now == 1)
    waiting = post(bench, "one", 1)
    wait_until(lambda: bench.metric("waiting", model="m") == 1)
    refused = chat(bench, "one")
    assert (refused.status, refused.error["code"]) == (429, "concurrency_limit_exceeded")
    waiting.sock.close()  # who leaves gives the place back
    wait_until(lambda: bench.metric("waiting", model="m") == 0)
    again = post(bench, "one", 2)
    gate.permits.release(2)
    assert [first.answer().status, again.answer().status] == [200, 200]
    gate.permits.release()
    assert chat(bench, "one").status == 200
    for client in (first, again):
        client.sock.close()


def test_tokens_a_minute_are_those_of_the_answers(bench: Bench, shared: tuple[Bench, Path]) -> None:
    def stream(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        for _ in range(20):
            talk.event({"choices": []})
        talk.end_stream()

    bench.serve(bench.worker().replica("m"), bench.worker(stream).replica("s"))
    # The short prompt and the 3 tokens that the answer tells leave 2 of 5; the next one needs more than that.
    assert chat(bench, "few").status == 200
    refused = chat(bench, "few")
    assert (refused.status, refused.error["type"]) == (429, "tokens")
    _, keys = shared
    keys.write_text(KEYS.replace("tpm=5", "tpm=6000"))
    wait_until(lambda: chat(bench, "few", "s").status == 200)
    statuses = [chat(bench, "few", "s").status for _ in range(3)]
    assert statuses == [200] * 3


def test_models_that_a_key_may_use(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m", "n"))
    assert chat(bench, "some").status == 200
    for name in ("n", "unknown"):
        refused = chat(bench, "some", name)
        assert (refused.status, refused.error["code"], refused.error["param"]) == (
            403,
            "model_not_allowed",
            "model",
        )
        assert ask(bench.port, "GET", f"/v1/models/{name}", headers=bearer("sk-some")).status == 403
    models = ask(bench.port, "GET", "/v1/models", headers=bearer("sk-some")).json["data"]
    assert [model["id"] for model in models] == ["m"]
    assert chat(bench, "free", "n").status == 200


def test_the_queue_is_fair_and_knows_priorities(bench: Bench) -> None:
    gate = Gate()
    bench.serve(bench.worker(gate).replica("m", max_concurrency=1))
    clients = []
    order = ["free"] * 4 + ["other"] * 2 + ["urgent"]
    for number, key in enumerate(order):
        clients.append(post(bench, key, number))
        wait_until(lambda: gate.now + bench.metric("waiting", model="m") == len(clients))
    gate.permits.release(len(order))
    assert [client.answer().status for client in clients] == [200] * len(order)
    # 0 was there before anybody waited; then the urgent one, then turn by turn.
    assert gate.order in ([0, 6, 1, 4, 2, 5, 3], [0, 6, 4, 1, 5, 2, 3])
    for client in clients:
        client.sock.close()


def test_a_full_queue_makes_room_for_another_key(bench: Bench) -> None:
    gate = Gate()
    bench.serve(bench.worker(gate).replica("m", max_concurrency=1))
    crowd = [post(bench, "free", number) for number in range(1 + 68)]
    wait_until(lambda: bench.metric("waiting", model="m") == 68)
    assert chat(bench, "free").status == 429
    guest = post(bench, "other", 1000)
    refused = crowd[-1].answer()
    assert (refused.status, refused.error["code"]) == (429, "queue_full")
    assert refused.headers["retry-after"]
    gate.permits.release(len(crowd))
    assert guest.answer().status == 200
    assert gate.order.index(1000) <= 2
    for client in (*crowd, guest):
        client.sock.close()
