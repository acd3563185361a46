"""What clients see when all is well."""

from __future__ import annotations

import json
import re

import openai
import pytest

from tests.integration.gateway.fakes import Bench, Client, Seen, Talk, ask, chat
from tests.support.waiting import wait_until


def sdk(bench: Bench) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{bench.gateway.url}/v1", api_key="unused", max_retries=0, timeout=10)


def test_models_are_every_name_of_what_is_ready_sorted(bench: Bench) -> None:
    one, two, three = bench.worker(), bench.worker(), bench.worker()
    bench.serve(
        one.replica("zeta", "alpha"), two.replica("mid"), {**three.replica("gone"), "draining": True},
        expected=["alpha", "never"],
    )  # fmt: skip
    with sdk(bench) as client:
        assert [model.id for model in client.models.list()] == ["alpha", "mid", "zeta"]
        assert client.models.retrieve("alpha").object == "model"
        with pytest.raises(openai.NotFoundError) as unknown:
            client.models.retrieve("nobody")
    assert unknown.value.code == "model_not_found"


def test_chat_through_the_openai_client_streamed_and_not(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))
    with sdk(bench) as client:
        whole = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        stream = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert whole.choices[0].message.content == "Hello"
    assert "".join(pieces) == "Hello"


def test_errors_are_what_the_openai_client_expects(bench: Bench) -> None:
    bench.serve(expected=["promised"])
    with sdk(bench) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model="nobody", messages=[])
        with pytest.raises(openai.InternalServerError) as not_ready:
            client.chat.completions.create(model="promised", messages=[])
    assert unknown.value.code == "model_not_found"
    assert not_ready.value.status_code == 503
    assert not_ready.value.response.headers["retry-after"]


@pytest.mark.parametrize(
    ("asked", "reached"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/completions", "/v1/completions"),
        ("/v1/embeddings?x=1", "/v1/embeddings?x=1"),
        ("/v1/rerank", "/v1/rerank"),
        ("/v2/rerank", "/v2/rerank"),
        ("/rerank", "/v1/rerank"),
        ("/v1/score", "/v1/score"),
        ("/score", "/v1/score"),
        ("/v1/responses", "/v1/responses"),
        ("//v1/v1/chat/completions/", "/v1/chat/completions"),
        ("/embeddings", "/v1/embeddings"),
        ("/pooling", "/pooling"),
        ("/classify", "/classify"),
        ("/v1/moderations", "/v1/moderations"),
        ("/tokenize", "/tokenize"),
        ("/detokenize", "/detokenize"),
        ("/api/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/engines/m%2Fx/embeddings", "/v1/embeddings"),
        ("http://any.host/v1/completions", "/v1/completions"),
    ],
)
def test_paths_reach_the_worker(bench: Bench, asked: str, reached: str) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m/x"))
    body = {"input": "a"} if "engines" in asked else {"input": "a", "model": "m/x"}
    answer = ask(bench.port, "POST", asked, body)
    assert answer.status == 200, answer.body
    assert worker.seen[0].path == reached
    assert worker.seen[0].json == {"input": "a", "model": "m/x"}


def engine_for_media(talk: Talk, seen: Seen) -> None:
    """Answers as servers of sound and pictures do: text, bytes or events."""
    if seen.path == "/v1/audio/speech":
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 4\r\n\r\n\xff\xfb\x00\r")
    elif b'name="stream"' in seen.body:
        talk.start_stream()
        talk.event({"type": "transcript.text.delta", "delta": "hel"})
        talk.event({"type": "transcript.text.done", "text": "hello"})
        talk.end_stream()
    else:
        talk.reply({"text": "hello"})


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # OpenAI's own models are; others are not
@pytest.mark.parametrize("own_name", [None, "openai/whisper-large-v3"])
def test_sound_goes_in_and_out_through_the_openai_client(bench: Bench, own_name: str | None) -> None:
    worker = bench.worker(engine_for_media)
    bench.serve(worker.replica("whisper", engine="command", engine_model=own_name))
    sound = b"RIFF\r\n--\x00" * 9000
    with sdk(bench) as client:
        text = client.audio.transcriptions.create(model="whisper", file=("a.wav", sound), language="en")
        events = list(client.audio.transcriptions.create(model="whisper", file=("a.wav", sound), stream=True))
        translated = client.audio.translations.create(model="whisper", file=("a.wav", sound))
        speech = client.audio.speech.create(model="whisper", voice="alloy", input="hello")
        with pytest.raises(openai.NotFoundError):
            client.audio.transcriptions.create(model="nobody", file=("a.wav", sound))
    assert text.text == translated.text == "hello"
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert speech.content == b"\xff\xfb\x00\r"
    form, stream, translation, spoken = worker.seen
    assert [seen.path for seen in (form, translation, spoken)] == [
        "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/audio/speech",
    ]  # fmt: skip
    boundary = re.findall(r"boundary=(\S+)", form.header("content-type") or "")[0]
    for seen in (form, stream, translation):
        assert b'name="model"\r\n\r\n%b\r\n' % (own_name or "whisper").encode() in seen.body
        assert sound in seen.body
    assert form.body.endswith(f"--{boundary}--\r\n".encode())
    assert spoken.json["model"] == (own_name or "whisper")


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("own_name", [None, "black-forest-labs/FLUX.2"])
def test_pictures_go_by_the_same_ways(bench: Bench, own_name: str | None) -> None:
    worker = bench.worker(lambda talk, seen: talk.reply({"created": 1, "data": [{"b64_json": "aGk="}]}))
    bench.serve(worker.replica("flux", engine="command", engine_model=own_name))
    with sdk(bench) as client:
        client.images.generate(model="flux", prompt="a cat")
        client.images.edit(model="flux", prompt="a dog", image=[("a.png", b"PNG"), ("b.png", b"PNG")])
        client.images.create_variation(model="flux", image=("a.png", b"PNG"), n=2)
    generation, *forms = worker.seen
    assert (generation.path, generation.json["model"]) == ("/v1/images/generations", own_name or "flux")
    assert [seen.path for seen in forms] == ["/v1/images/edits", "/v1/images/variations"]
    for seen in forms:
        assert b'name="model"\r\n\r\n%b\r\n' % (own_name or "flux").encode() in seen.body
        assert b"PNG" in seen.body


def test_who_works_on_a_picture_for_long_is_not_taken_for_broken(bench: Bench) -> None:
    """It trips over the gateway's tiny requests, and its answer is awaited all the same."""
    tripped: list[Seen] = []

    def slow(talk: Talk, seen: Seen) -> None:
        if b"cat" not in seen.body:
            tripped.append(seen)
            talk.reply({"detail": "KeyError: 'prompt'"}, 500)
        else:  # longer than the silence it is allowed: there is one such request in each second
            wait_until(lambda: len(tripped) >= 2, 20)
            talk.reply({"data": []})

    worker, other = bench.worker(slow), bench.worker()
    allowed = {"request_timeout_s": 1.0}
    bench.serve(worker.replica("flux", **allowed), other.replica("flux", queue_length=50, **allowed))
    with sdk(bench) as client:
        assert client.images.edit(model="flux", prompt="a cat", image=("a.png", b"PNG")).data == []
    assert not other.seen


def test_uploads_that_are_refused(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))

    def ask_as(kind: str, body: bytes, path: str = "/v1/audio/transcriptions") -> tuple[int, str, str | None]:
        answer = ask(bench.port, "POST", path, body, headers={"Content-Type": kind})
        return answer.status, answer.error["message"], answer.error["param"]

    field = b'--b\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n--b--\r\n'
    missing = (400, "You must provide a model parameter.", "model")
    assert ask_as("multipart/form-data; boundary=b", field) == missing
    assert ask_as("application/json", b"{}") == missing
    assert ask_as("multipart/form-data", field)[:1] == (400,)
    assert ask_as("audio/wav", b"RIFF")[:2] == (
        415,
        "The body is sent as audio/wav; it must be a form (multipart/form-data; curl: -F) or JSON.",
    )
    for path in (
        "/v1/audio/speech",
        "/v1/chat/completions",
    ):  # what pages may send without asking is for files alone
        assert ask_as("multipart/form-data; boundary=b", field, path)[0] == 415


def test_bytes_of_request_and_answer_pass_untouched(bench: Bench) -> None:
    odd = b'{ "messages" : ["\\u00e9"],\n "model":"m", "n": 1.0 }'
    sent = b'{"weird" :  [1.0, "\xc3\xa9"]}'

    def behave(talk: Talk, seen: Seen) -> None:
        talk.send(b"HTTP/1.1 201 Made\r\nx-engine: yes\r\ncontent-length: %d\r\n\r\n%b" % (len(sent), sent))

    worker = bench.worker(behave)
    bench.serve(worker.replica("m"))
    answer = ask(bench.port, "POST", "/v1/chat/completions", odd)
    assert worker.seen[0].body == odd
    assert (answer.status, answer.body, answer.headers["x-engine"]) == (201, sent, "yes")


def test_header_policy(bench: Bench) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.reply(
            {}, extra="connection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nx-request-id: theirs\r\n"
        )

    worker = bench.worker(behave)
    bench.serve(worker.replica("m"))
    headers = {
        "Authorization": "Bearer secret", "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4", "X-Request-Id": "mine-1",
        "TE": "trailers", "X-Own": "kept", "traceparent": "00-a-b-01",
    }  # fmt: skip
    answer = ask(bench.port, "POST", "/v1/completions", {"model": "m"}, headers)
    seen = worker.seen[0]
    for name in ("authorization", "cookie", "x-forwarded-for", "te", "connection"):
        assert seen.header(name) is None
    assert (seen.header("x-own"), seen.header("traceparent")) == ("kept", "00-a-b-01")
    assert seen.header("host") == worker.url.removeprefix("http://")
    assert seen.header("x-request-id") == answer.headers["x-request-id"] == "mine-1"
    assert "x-hop" not in answer.headers
    assert "keep-alive" not in answer.headers


def test_a_request_id_is_made_when_there_is_none_or_a_bad_one(bench: Bench) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    first, second = chat(bench.port, "m"), ask(
        bench.port, "POST", "/v1/completions", {"model": "m"}, {"x-request-id": "a b"}
    )  # fmt: skip
    ids = [first.headers["x-request-id"], second.headers["x-request-id"]]
    assert len(set(ids)) == 2
    assert all(identity.startswith("req-") for identity in ids)
    assert [seen.header("x-request-id") for seen in worker.seen] == ids


def test_connections_to_workers_are_used_again(bench: Bench) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    for _ in range(5):
        assert chat(bench.port, "m").status == 200
        assert chat(bench.port, "m", stream=True).status == 200
    assert worker.connections == 1


def test_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    one = json.dumps({"model": "m", "n": 1}).encode()
    post = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (
        len(one),
        one,
    )
    get = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    nobody = b"GET /nobody HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with Client(bench.port) as client:
        client.send(post + get + nobody + post)
        assert [client.answer().status for _ in range(4)] == [200, 200, 404, 200]
        client.send(post)
        assert client.answer().status == 200


def test_many_requests_sent_ahead_all_get_answers(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))
    with Client(bench.port) as client:
        client.send(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n" * 500)
        assert {client.answer().status for _ in range(500)} == {200}


def test_chunked_and_dripping_bodies_and_expect_continue(bench: Bench) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    with Client(bench.port) as client:
        client.send(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in (b'{"mod', b'el":', b'"m"}'):
            client.send(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
        client.send(b"0\r\nTrailer: x\r\n\r\n")
        assert client.answer().status == 200
        client.send(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 13\r\n\r\n"
        )
        assert client.head()[0] == 100
        client.send(b'{"model":"m"}')
        assert client.answer().status == 200
    assert [seen.body for seen in worker.seen] == [b'{"model":"m"}'] * 2
    assert all(seen.header("expect") is seen.header("transfer-encoding") is None for seen in worker.seen)


def test_http_1_0_gets_plain_bytes_and_a_close(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))
    body = b'{"model":"m","stream":true}'
    with Client(bench.port) as client:
        client.send(b"POST /v1/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        answer = client.answer()
    assert "transfer-encoding" not in answer.headers
    assert answer.headers["connection"] == "close"
    assert answer.body.startswith(b"data: {")
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_head_and_options(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))
    with Client(bench.port) as client:
        client.send(b"HEAD /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n")
        head = client.answer("HEAD")
        client.send(b"OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n\r\n")
        options = client.answer()
    assert (head.status, int(head.headers["content-length"]) > 0) == (200, True)
    assert (options.status, options.headers["allow"]) == (204, "POST, OPTIONS")


def test_answers_without_a_length_end_with_the_connection(bench: Bench) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.send(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{}")
        talk.hang_up()

    bench.serve(bench.worker(behave).replica("m"))
    answer = chat(bench.port, "m")
    assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"{}", "close")


def test_an_engines_own_name_goes_up_and_the_asked_one_comes_back(bench: Bench) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("nice", engine_model="/models/ugly"))
    whole = chat(bench.port, "nice")
    streamed = chat(bench.port, "nice", stream=True)
    assert [seen.json["model"] for seen in worker.seen] == ["/models/ugly"] * 2
    assert whole.json["model"] == "nice"
    assert whole.json["choices"][0]["message"]["content"] == "Hello"
    events = [line[6:] for line in streamed.body.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert {json.loads(event)["model"] for event in events[:-1]} == {"nice"}


def test_health_ready_and_metrics(bench: Bench) -> None:
    bench.serve(expected=["m"])
    assert ask(bench.port, "GET", "/health").json["status"] == "degraded"
    assert ask(bench.port, "GET", "/ready").status == 503
    bench.serve(bench.worker().replica("m"), expected=["m"])
    health = ask(bench.port, "GET", "/health")
    assert (health.status, health.json["status"]) == (200, "ok")
    assert (health.json["names_ready"], health.json["names_expected"]) == (1, 1)
    assert ask(bench.port, "GET", "/ready").status == 200
    labels = {"path": "/v1/chat/completions", "model": "m", "status": "200"}
    before = bench.metric("requests_total", **labels)
    chat(bench.port, "m")
    chat(bench.port, "unheard-of")
    assert bench.metric("requests_total", **labels) == before + 1
    page = ask(bench.port, "GET", "/metrics").body.decode()
    assert "unheard-of" not in page
    assert 'time_to_first_byte_seconds_count{path="/v1/chat/completions",model="m"}' in page


def test_no_request_asks_the_controller(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))
    bench.controller.calls.clear()
    for _ in range(30):
        assert chat(bench.port, "m").status == 200
    assert len([call for call in bench.controller.calls if not call.startswith("/gateway_report")]) <= 2


def test_requests_spread_over_replicas_by_load(bench: Bench) -> None:
    def slow(talk: Talk, seen: Seen) -> None:
        wait_until(lambda: len(one.seen) + len(two.seen) >= 8, 10)
        talk.reply({})

    one, two = bench.worker(slow), bench.worker(slow)
    bench.serve(one.replica("m"), two.replica("m", speed=3.0))
    clients = [Client(bench.port) for _ in range(8)]
    for client in clients:
        client.post({"model": "m"})
    assert [client.answer().status for client in clients] == [200] * 8
    for client in clients:
        client.sock.close()
    assert (len(one.seen), len(two.seen)) == (2, 6)


def test_a_large_answer_to_a_slow_reader_waits_at_the_worker(bench: Bench) -> None:
    """Memory of the gateway does not grow: the worker's own writes block."""
    size = 64 << 20
    written: list[int] = []

    def behave(talk: Talk, seen: Seen) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        talk.sock.settimeout(0.5)
        piece, total = bytes(1 << 16), 0
        try:
            while total < size:
                total += talk.sock.send(piece[: size - total])
        except TimeoutError:
            written.append(total)
            talk.sock.settimeout(30)
            while total < size:
                total += talk.sock.send(piece[: size - total])
        written.append(total)

    bench.serve(bench.worker(behave).replica("m"))
    with Client(bench.port) as client:
        client.post({"model": "m"})
        wait_until(lambda: written, 20, "the worker blocks")
        assert written[0] < size / 2
        answer = client.answer()
    assert len(answer.body) == size
