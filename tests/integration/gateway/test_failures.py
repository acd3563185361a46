"""Workers that die, clients that leave, controllers that vanish."""

from __future__ import annotations

import json
import signal
import socket
import time

import openai
import pytest

from tests.integration.gateway.fakes import (
    Behaviour,
    Bench,
    Client,
    FakeController,
    FakeWorker,
    GatewayProcess,
    Seen,
    Talk,
    ask,
    chat,
    running,
)
from tests.integration.gateway.test_serving import sdk
from tests.support.ports import free_port
from tests.support.waiting import wait_until


def hang_up(talk: Talk, seen: Seen) -> None:
    talk.hang_up()


def reset(talk: Talk, seen: Seen) -> None:
    talk.reset()


def half_a_head(talk: Talk, seen: Seen) -> None:
    talk.send(b"HTTP/1.1 200 OK\r\ncontent-le")
    talk.hang_up()


def a_head_and_nothing(talk: Talk, seen: Seen) -> None:
    talk.start_stream()
    talk.hang_up()


def draining(talk: Talk, seen: Seen) -> None:
    talk.reply({"error": {"message": "draining"}}, 503)


@pytest.mark.parametrize("fault", [hang_up, reset, half_a_head, a_head_and_nothing, draining])
def test_a_replica_that_fails_before_the_first_byte_is_invisible(bench: Bench, fault: Behaviour) -> None:
    bad, good = bench.worker(fault), bench.worker()
    # The good one looks busy, so that the bad one is always chosen first.
    bench.serve(bad.replica("m"), good.replica("m", queue_length=50))
    for number in range(3):
        assert chat(bench.port, "m", stream=bool(number % 2)).status == 200
    assert bad.seen
    assert bench.metric("retries_total") >= 1


def test_a_replica_that_refuses_connections_is_left_out_for_a_while(bench: Bench) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    good = bench.worker()
    bench.serve({"worker_name": gone, "model_names": ["m"]}, good.replica("m", queue_length=50))
    for _ in range(10):
        assert chat(bench.port, "m").status == 200
    assert 1 <= bench.metric("upstream_errors_total", replica=gone) <= 5
    assert len(good.seen) == 10


def test_all_replicas_gone_is_a_clean_503(bench: Bench) -> None:
    gone = {"worker_name": f"http://127.0.0.1:{free_port()}", "model_names": ["m"]}
    bench.serve(gone)
    answer = chat(bench.port, "m")
    assert answer.status == 503
    assert answer.headers["retry-after"]
    assert answer.error["code"] == "replica_unavailable"


def test_the_only_replica_that_resets_is_a_503_and_not_asked_for_ever(bench: Bench) -> None:
    worker = bench.worker(reset)
    bench.serve(worker.replica("m"))
    assert chat(bench.port, "m").status == 503
    assert len(worker.seen) == 1


def test_a_request_that_kills_its_replica_does_not_kill_them_all(bench: Bench) -> None:
    workers = [bench.worker(reset) for _ in range(6)]
    bench.serve(*[worker.replica("m") for worker in workers])
    for _ in range(3):
        answer = chat(bench.port, "m")
        assert (answer.status, answer.error["code"]) == (500, "request_breaks_replicas")
        assert answer.headers["x-should-retry"] == "false"
        assert "retry-after" not in answer.headers
    assert sum(len(worker.seen) for worker in workers) == 2
    # Replicas that are all others than those have a right to their own experience.
    bench.serve(bench.worker().replica("m"))
    assert chat(bench.port, "m").status == 200


def test_whoever_came_back_is_asked_again_when_the_other_is_away(bench: Bench) -> None:
    def once(talk: Talk, seen: Seen) -> None:
        talk.reset() if len(first.seen) == 1 else talk.reply({"ok": True})

    first = bench.worker(once)
    gone = {"worker_name": f"http://127.0.0.1:{free_port()}", "model_names": ["m"], "queue_length": 50}
    bench.serve(first.replica("m"), gone)
    assert chat(bench.port, "m").json == {"ok": True}
    assert len(first.seen) == 2


def test_the_only_replica_that_drains_passes_its_503_on(bench: Bench) -> None:
    bench.serve(bench.worker(draining).replica("m"))
    answer = chat(bench.port, "m")
    assert (answer.status, answer.json) == (503, {"error": {"message": "draining"}})


def test_a_stale_pooled_connection_is_replaced_unseen(bench: Bench) -> None:
    """The worker closes an idle connection at the moment it is used again."""

    def once(talk: Talk, seen: Seen) -> None:
        if len(worker.seen) % 2:
            talk.reply({})
        else:
            talk.reset() if worker.connections == 1 else talk.reply({})

    worker = bench.worker(once)
    bench.serve(worker.replica("m"))
    assert chat(bench.port, "m").status == 200
    assert chat(bench.port, "m").status == 200
    assert (len(worker.seen), worker.connections) == (3, 2)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx y: a\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        b"x" * 100_000,
    ],
)
def test_a_worker_that_speaks_no_http_is_a_502(bench: Bench, nonsense: bytes) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.send(nonsense)
        talk.wait_for_peer_to_leave()

    bench.serve(bench.worker(behave).replica("m"))
    answer = chat(bench.port, "m")
    assert (answer.status, answer.error["code"]) == (502, "bad_answer")


@pytest.mark.parametrize("cut", ["between events", "within a chunk", "within an event"])
def test_a_stream_that_breaks_ends_in_an_error_event_and_a_close(bench: Bench, cut: str) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        talk.event({"choices": [], "n": 1})
        if cut == "within a chunk":
            talk.send(b"100\r\ndata: {")
        if cut == "within an event":
            talk.send(b"6\r\ndata: \r\n")
        talk.hang_up()

    bench.serve(bench.worker(behave).replica("m"))
    with Client(bench.port) as client:
        client.post({"model": "m", "stream": True})
        assert client.head()[0] == 200
        whole = client.to_the_end()
    content, rest = b"", whole
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        content, rest = content + rest[:length], rest[length + 2 :]
    assert not whole.endswith(b"0\r\n\r\n")
    last = [event for event in content.split(b"\n\n") if event.strip()][-1].strip()
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert error["code"] == "stream_interrupted"


ENDED_BY_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n\r\n"
STREAM, JSON = b"text/event-stream", b"application/json; charset=utf-8"


@pytest.mark.parametrize("death", ["closes", "resets"])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (STREAM, b'data: {"n": 1}\n\n'),
        (STREAM, b'data: {"n": 1}\n\ndata: {"n'),
        (JSON, b'{"model": "m", "choi'),
    ],
    ids=["between events", "within an event", "JSON"],
)
def test_an_answer_without_a_length_that_breaks_is_told(
    bench: Bench, kind: bytes, content: bytes, death: str
) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.send(ENDED_BY_CLOSE % kind + content)
        wait_until(lambda: arrived)
        talk.hang_up() if death == "closes" else talk.reset()

    arrived: list[bool] = []
    bench.serve(bench.worker(behave).replica("m"))
    with Client(bench.port) as client:
        client.post({"model": "m", "stream": kind == STREAM})
        assert client.head()[0] == 200
        client.until(content)
        arrived.append(True)
        if kind == STREAM:
            *_, last = client.to_the_end().strip().split(b"\n\n")
            assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "stream_interrupted"
        else:
            with pytest.raises(ConnectionResetError):
                client.to_the_end()


@pytest.mark.parametrize(
    ("kind", "content"),
    [(STREAM, b'data: {"n": 1}\n\ndata: [DONE]\n\n'), (JSON, b'{"model": "m"}\n'), (b"text/plain", b"any")],
    ids=["stream", "JSON", "another type"],
)
def test_an_answer_without_a_length_that_is_whole_is_left_alone(
    bench: Bench, kind: bytes, content: bytes
) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.send(ENDED_BY_CLOSE % kind + content)
        talk.hang_up()

    bench.serve(bench.worker(behave).replica("m"))
    with Client(bench.port) as client:
        client.post({"model": "m"})
        client.head()
        assert client.to_the_end() == content


STREAM_HEADS = {
    "chunked": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n10\r\n%b\r\n",
    "sized": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1000\r\n\r\n%b",
    "ended by close": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n%b",
}


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("framing", STREAM_HEADS)
@pytest.mark.parametrize("engine_model", [None, "own-name"])
def test_a_stream_that_breaks_is_told_in_every_framing(
    bench: Bench, version: str, framing: str, engine_model: str | None
) -> None:
    """By an error event, wherever its framing has room for one; and never by what looks like an end."""

    def behave(talk: Talk, seen: Seen) -> None:
        talk.send(STREAM_HEADS[framing] % b'data: {"n": 1}\n\n')
        wait_until(lambda: arrived)
        talk.hang_up()

    arrived: list[bool] = []
    bench.serve(bench.worker(behave).replica("m", engine_model=engine_model))
    with Client(bench.port) as client:
        body = b'{"model": "m", "stream": true}'
        client.send(
            b"POST /v1/completions HTTP/%b\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"
            % (version.encode(), len(body), body)
        )
        _, fields = client.head()
        if fields.get("transfer-encoding") == "chunked":
            content = client.chunk()
            arrived.append(True)
            while b"stream_interrupted" not in content:
                content += client.chunk()
            assert client.to_the_end() == b""  # no last chunk
        else:
            content = client.until(b"\n\n")
            arrived.append(True)
            content += client.to_the_end()
    if framing == "sized" and engine_model is None:
        assert content == b'data: {"n": 1}\n\n'
        assert int(fields["content-length"]) > len(content)
    else:
        *_, last = content.strip().split(b"\n\n")
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "stream_interrupted"


def test_the_openai_client_raises_on_a_broken_stream(bench: Bench) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        talk.event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []})
        talk.hang_up()

    bench.serve(bench.worker(behave).replica("m"))
    with sdk(bench) as client:
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        with pytest.raises(openai.APIError, match="interrupted"):
            list(stream)


def test_a_sized_answer_that_breaks_is_cut_short_not_completed(bench: Bench) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        talk.hang_up()

    bench.serve(bench.worker(behave).replica("m"))
    with Client(bench.port) as client:
        client.post({"model": "m"})
        assert client.head()[1]["content-length"] == "100"
        assert client.to_the_end() == b"{"


@pytest.mark.parametrize("when", ["before the answer", "after the head", "mid-stream"])
def test_a_client_that_leaves_ends_the_work_at_once(bench: Bench, when: str) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        if when != "before the answer":
            talk.start_stream()
        if when == "mid-stream":
            talk.event({"n": 1})
        talk.wait_for_peer_to_leave()

    worker = bench.worker(behave)
    bench.serve(worker.replica("m"))
    with Client(bench.port) as client:
        client.post({"model": "m", "stream": True})
        wait_until(lambda: worker.seen)
        if when == "mid-stream":
            client.until(b"\n\n")
    left = time.monotonic()
    wait_until(lambda: worker.left, 5, "the gateway closes its connection to the worker")
    assert worker.left[0] - left < 2.0  # aimed at 0.1; a busy machine gets more
    wait_until(lambda: bench.metric("in_flight", replica=worker.url) == 0)


def test_a_client_that_only_stopped_sending_still_gets_its_answer(bench: Bench) -> None:
    ready: list[bool] = []

    def behave(talk: Talk, seen: Seen) -> None:
        wait_until(lambda: ready)
        talk.reply({"ok": True})

    worker = bench.worker(behave)
    bench.serve(worker.replica("m"))
    with Client(bench.port) as client:
        client.post({"model": "m"})
        client.sock.shutdown(socket.SHUT_WR)
        client.until(b"HTTP/1.1 100 Continue\r\n\r\n")
        ready.append(True)
        assert client.answer().json == {"ok": True}


def test_a_replica_that_came_back_is_asked_again(bench: Bench) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    assert chat(bench.port, "m").status == 200
    worker.close()
    assert chat(bench.port, "m").status == 503
    again = FakeWorker(port=worker.port)
    bench.workers.append(again)
    assert chat(bench.port, "m").status == 200


def test_a_dead_controller_freezes_membership_not_serving(bench: Bench) -> None:
    with running() as own:
        worker = own.worker()
        own.serve(worker.replica("m"), expected=["m"])
        own.controller.close()
        wait_until(lambda: own.metric("controller_up") == 0)
        for _ in range(5):
            assert chat(own.port, "m").status == 200
        assert "serving continues" in own.gateway.log


def test_a_new_controller_that_is_not_settled_takes_nothing_away(bench: Bench) -> None:
    with running() as own:
        old, new = own.worker(), own.worker()
        own.serve(old.replica("m"), expected=["m"])
        port = own.controller.port
        own.controller.close()
        wait_until(lambda: own.metric("controller_up") == 0)
        own.controller = FakeController(port, epoch="two", rev=10)
        own.serve(new.replica("n"), settled=False)
        assert chat(own.port, "m").status == chat(own.port, "n").status == 200
        own.serve(new.replica("n"), settled=True)
        assert (chat(own.port, "m").status, chat(own.port, "n").status) == (404, 200)


def test_a_gateway_without_a_controller_says_so_and_recovers() -> None:
    port = free_port()
    gateway = GatewayProcess(f"http://127.0.0.1:{port}")
    try:
        gateway.until_up()
        early = chat(gateway.port, "m")
        assert (early.status, early.error["code"]) == (503, "starting")
        assert ask(gateway.port, "GET", "/health").json["status"] in ("starting", "degraded")
        worker, controller = FakeWorker(), FakeController(port)
        try:
            controller.set(worker.replica("m"))
            gateway.until_serving("m")
            assert chat(gateway.port, "m").status == 200
        finally:
            worker.close()
            controller.close()
    finally:
        assert gateway.stop() == 0


def test_requests_right_after_a_start_wait_for_the_first_routes() -> None:
    """A client that was served before the gateway was restarted must not be refused because it is quick."""
    port = free_port()
    gateway = GatewayProcess(f"http://127.0.0.1:{port}")
    worker = FakeWorker()
    controller: FakeController | None = None
    try:
        gateway.until_up()
        with Client(gateway.port) as one, Client(gateway.port) as half_closed, Client(gateway.port) as models:
            one.post({"model": "m"})
            half_closed.post({"model": "m"})
            half_closed.sock.shutdown(socket.SHUT_WR)
            models.send(
                b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
            )
            # Metrics tell how it is, whatever it waits for; and what is wrong anyhow need not wait.
            assert ask(gateway.port, "GET", "/metrics").status == 200
            assert ask(gateway.port, "GET", "/nothing").status == 404
            controller = FakeController(port, replicas=[worker.replica("m")], expected=["m"])
            assert one.answer().status == 200
            assert half_closed.answer().status == 200
            assert models.answer().json["status"] == "ok"
            assert [model["id"] for model in models.answer().json["data"]] == ["m"]
    finally:
        worker.close()
        code = gateway.stop()
        if controller is not None:
            controller.close()
    assert code == 0


def test_a_stop_answers_what_waits_for_the_first_routes() -> None:
    gateway = GatewayProcess(f"http://127.0.0.1:{free_port()}")
    try:
        gateway.until_up()
        with Client(gateway.port) as client:
            client.post({"model": "m"})
            assert ask(gateway.port, "GET", "/metrics").status == 200
            gateway.process.send_signal(signal.SIGTERM)
            assert client.answer().status == 503
        assert gateway.finish() == 0
    finally:
        if gateway.process.poll() is None:
            gateway.stop(signal.SIGKILL)


def test_counts_in_flight_reach_the_controller(bench: Bench) -> None:
    ready: list[bool] = []

    def behave(talk: Talk, seen: Seen) -> None:
        wait_until(lambda: ready)
        talk.reply({})

    worker = bench.worker(behave)
    bench.serve(worker.replica("m"))
    with Client(bench.port) as client:
        client.post({"model": "m"})
        wait_until(lambda: {worker.url: 1} in bench.controller.reports)
        bench.serve({**worker.replica("m"), "draining": True})
        assert chat(bench.port, "m").status == 503
        ready.append(True)
        assert client.answer().status == 200
        wait_until(lambda: bench.controller.reports[-1] == {})
