"""What one replica holds is asked of that replica; and FastChat's token_check of the model in its prompts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmlaunch.controller.response_ids import marked_id
from tests.integration.gateway.fakes import Bench, Client, FakeWorker, Seen, Talk, ask, running
from tests.support.ports import free_port
from tests.support.waiting import wait_until


def held(talk: Talk, seen: Seen) -> None:
    """A worker of /v1/responses: says who it is, and what it was asked."""
    method, path = seen.head.split(b" ")[:2]
    identity = (
        marked_id("resp", talk.worker.url, os.urandom(20))
        if method == b"POST"
        else path.decode().rpartition("/")[2]
    )
    talk.reply({"id": identity, "object": "response", "method": method.decode(), "worker": talk.worker.url})


def three(bench: Bench) -> list[FakeWorker]:
    workers = [bench.worker(held) for _ in range(3)]
    bench.serve(*(worker.replica("m") for worker in workers))
    return workers


def test_a_response_is_found_at_the_replica_that_gave_it(bench: Bench) -> None:
    three(bench)
    for _ in range(12):
        first = ask(bench.port, "POST", "/v1/responses", {"model": "m", "input": "x"}).json
        where = f"/v1/responses/{first['id']}"
        for method in ("GET", "DELETE"):
            again = ask(bench.port, method, where)
            assert (again.status, again.json["id"]) == (200, first["id"])
            assert (again.json["worker"], again.json["method"]) == (first["worker"], method)
        follow = {"model": "m", "input": "y", "previous_response_id": first["id"]}
        assert ask(bench.port, "POST", "/v1/responses", follow).json["worker"] == first["worker"]
    assert bench.metric("requests_total", path="/v1/responses/{id}", status="200") >= 24


def test_a_request_goes_to_the_replica_that_gave_the_items_it_refers_to(bench: Bench) -> None:
    workers = three(bench)
    for worker in workers:
        for prefix in ("msg", "fc", "rs"):
            item = marked_id(prefix, worker.url, os.urandom(20))
            strange = {"type": "item_reference", "id": "msg_of_another_engine"}
            for reference in ({"type": "item_reference", "id": item}, {"id": item}):
                body = {"model": "m", "input": [{"role": "user", "content": "x"}, strange, reference]}
                for path in ("/v1/responses", "/v1/responses/input_tokens"):
                    assert ask(bench.port, "POST", path, body).json["worker"] == worker.url
        response = f"/v1/responses/{marked_id('resp', worker.url, os.urandom(20))}"
        for method, path in (("GET", "/input_items?limit=5&order=asc"), ("POST", "/cancel")):
            assert ask(bench.port, method, response + path).json["worker"] == worker.url
            assert worker.seen[-1].head.startswith(f"{method} {response}{path} ".encode())
    # An item that is sent whole needs no replica of its own, and one of a replica that is gone is refused by the one that gets it.
    gone = marked_id("msg", "http://127.0.0.1:9", bytes(20))
    for given in ({"id": gone, "role": "user", "content": "x"}, {"type": "item_reference", "id": gone}):
        assert ask(bench.port, "POST", "/v1/responses", {"model": "m", "input": [given]}).status == 200


def test_a_response_whose_worker_is_gone_is_an_honest_404(bench: Bench) -> None:
    workers = three(bench)
    gone = marked_id("resp", "http://127.0.0.1:9", bytes(20))
    for identity in (gone, "resp_" + "a" * 32, "resp-other"):
        for method in ("GET", "DELETE"):
            answer = ask(bench.port, method, f"/v1/responses/{identity}")
            assert (answer.status, answer.error["code"]) == (404, "response_not_found")
    assert not any(worker.seen for worker in workers)
    # The worker that gets it says what it does not know; here all do, and any of them answers.
    follow = {"model": "m", "input": "y", "previous_response_id": gone}
    assert ask(bench.port, "POST", "/v1/responses", follow).status == 200


def test_where_there_is_one_replica_it_is_asked_for_ids_that_do_not_tell(bench: Bench) -> None:
    bench.serve(bench.worker(held).replica("m"))
    assert ask(bench.port, "GET", "/v1/responses/resp_" + "a" * 32).status == 200
    assert ask(bench.port, "GET", f"/v1/responses/{marked_id('resp', 'http://x', bytes(20))}").status == 404


def test_methods_and_ids_that_are_none(bench: Bench) -> None:
    bench.serve(bench.worker(held).replica("m"))
    wrong = ask(bench.port, "POST", "/v1/responses/resp_a", {"model": "m"})
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, DELETE, OPTIONS")
    for path, allowed in (
        ("/v1/responses", "POST, OPTIONS"),
        ("/v1/responses/input_tokens", "POST, OPTIONS"),
        ("/v1/responses/resp_a/cancel", "POST, OPTIONS"),
    ):
        wrong = ask(bench.port, "GET", path)
        assert (wrong.status, wrong.headers["allow"]) == (405, allowed)
    for path in ("/v1/responses/a/b", "/v1/responses/%0d", "/v1/responses/" + "a" * 300):
        assert ask(bench.port, "GET", path).status == 404, path


def test_a_dead_holder_is_not_replaced_by_another(bench: Bench) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    other = bench.worker(held)
    bench.serve({"worker_name": dead, "model_names": ["m"]}, other.replica("m"))
    identity = marked_id("resp", dead, bytes(20))
    for method, path, body in (
        ("GET", f"/v1/responses/{identity}", None),
        ("POST", "/v1/responses", {"model": "m", "input": "x", "previous_response_id": identity}),
    ):
        answer = ask(bench.port, method, path, body)
        assert (answer.status, answer.error["code"]) == (503, "replica_unavailable")
    assert not other.seen


def test_a_busy_holder_is_waited_for_while_others_are_free(bench: Bench) -> None:
    free: list[bool] = []

    def slow(talk: Talk, seen: Seen) -> None:
        wait_until(lambda: free)
        held(talk, seen)

    holder, other = bench.worker(slow), bench.worker(held)
    bench.serve(holder.replica("m", max_concurrency=1), other.replica("m", max_concurrency=1))
    identity = marked_id("resp", holder.url, bytes(20))
    with Client(bench.port) as one, Client(bench.port) as two:
        for client in (one, two):
            client.send(f"GET /v1/responses/{identity} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        wait_until(lambda: bench.metric("waiting", model="m") == 1)
        # Neither the one that waits nor its place in the queue keeps others from the free replica.
        for _ in range(3):
            assert ask(bench.port, "POST", "/v1/responses", {"model": "m", "input": "x"}).status == 200
        assert bench.metric("waiting", model="m") == 1
        free.append(True)
        assert [client.answer().json["worker"] for client in (one, two)] == [holder.url] * 2
    assert len(holder.seen) == 2


def test_a_key_reaches_only_what_its_models_hold(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice: sk-a  models=m\nbob: sk-b  models=n rpm=1\n")
    keys.chmod(0o600)
    alice, bob = {"Authorization": "Bearer sk-a"}, {"Authorization": "Bearer sk-b"}
    with running("--api-keys-file", str(keys)) as bench:
        worker = bench.worker(held)
        bench.serve(worker.replica("m"))
        path = f"/v1/responses/{marked_id('resp', worker.url, bytes(20))}"
        assert ask(bench.port, "GET", path, headers=alice).status == 200
        assert ask(bench.port, "GET", path, headers=bob).status == 404
        assert ask(bench.port, "GET", path).status == 401
        bench.serve(worker.replica("m", "n"))
        assert ask(bench.port, "GET", path, headers=bob).status == 200
        assert ask(bench.port, "GET", path, headers=bob).status == 429


def test_token_check_goes_to_the_model_of_its_prompts(bench: Bench) -> None:
    worker, other = (bench.worker(lambda talk, seen: talk.reply({"ok": True})) for _ in range(2))
    bench.serve(worker.replica("m"), other.replica("n"))
    body = {"prompts": [{"model": "m", "prompt": prompt, "max_tokens": 1} for prompt in ("x", "y")]}
    assert ask(bench.port, "POST", "/api/v1/token_check", body).status == 200
    assert (worker.seen[0].path, worker.seen[0].json) == ("/api/v1/token_check", body)
    assert not other.seen


@pytest.mark.parametrize(
    "prompts",
    [None, [], "x", [1], [{"prompt": "x"}], [{"model": "m"}, {"model": "n"}], [{"model": ""}], [{"model": ["m"]}]],
    ids=str,
)  # fmt: skip
def test_token_checks_that_name_no_model_or_several(bench: Bench, prompts: object) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m", "n"))
    assert ask(bench.port, "POST", "/api/v1/token_check", {"prompts": prompts}).status == 400
    assert not worker.seen
