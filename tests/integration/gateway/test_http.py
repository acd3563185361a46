"""Requests that are wrong, hostile or too much: refused as RFC 9112 says, in OpenAI's envelope, and never a hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.gateway.fakes import Bench, Client, Seen, Talk, ask, running
from tests.support.waiting import wait_until

BODY = b'{"model":"m"}'
POST = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"

HOSTILE = {
    "two lengths": POST + b"content-length: 13\r\ncontent-length: 13\r\n\r\n" + BODY,
    "conflicting lengths": POST + b"content-length: 13\r\ncontent-length: 3\r\n\r\n" + BODY,
    "list of lengths": POST + b"content-length: 13, 13\r\n\r\n" + BODY,
    "signed length": POST + b"content-length: +13\r\n\r\n" + BODY,
    "huge length": POST + b"content-length: 99999999999999999999999\r\n\r\n" + BODY,
    "length and coding": POST + b"content-length: 13\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"transfer-encoding: chunked\r\ncontent-length: 13\r\n\r\n0\r\n\r\n",
    "unknown coding": POST + b"transfer-encoding: gzip\r\n\r\n" + BODY,
    "coding after chunked": POST + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "two codings": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "hidden coding": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding in 1.0": b"POST /v1/completions HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded field": POST + b"x: a\r\n b\r\ncontent-length: 13\r\n\r\n" + BODY,
    "NUL in a value": POST + b"x: a\0b\r\ncontent-length: 13\r\n\r\n" + BODY,
    "NUL in a name": POST + b"x\0: a\r\ncontent-length: 13\r\n\r\n" + BODY,
    "space before the colon": POST + b"content-length : 13\r\n\r\n" + BODY,
    "bare line feed": b"POST /v1/completions HTTP/1.1\nhost: localhost\ncontent-length: 13\n\n" + BODY,
    "bare carriage return": POST + b"x: a\rcontent-length: 13\r\n\r\n" + BODY,
    "bad chunk size": POST + b"transfer-encoding: chunked\r\n\r\n0xd\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk too long": POST + b"transfer-encoding: chunked\r\n\r\n3\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk with line feeds": POST + b"transfer-encoding: chunked\r\n\r\nd\n" + BODY + b"\n0\n\n",
    "no host": b"POST /v1/completions HTTP/1.1\r\ncontent-length: 13\r\n\r\n" + BODY,
    "two hosts": POST + b"host: y\r\ncontent-length: 13\r\n\r\n" + BODY,
    "unknown method": b"BREW /v1/completions HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "unknown version": b"POST /v1/completions HTTP/3.7\r\nhost: localhost\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "control in the path": b"GET /\x01 HTTP/1.1\r\nhost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_framing_is_refused_and_the_connection_ends(bench: Bench, case: str) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    with Client(bench.port) as client:
        client.send(HOSTILE[case])
        answer = client.answer()
        assert answer.status in (400, 501), answer
        assert answer.error["type"] == "invalid_request_error"
        assert answer.headers["connection"] == "close"
        assert client.closed()
    assert worker.seen == []


def test_nothing_behind_a_refused_request_is_read_as_a_request(bench: Bench) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    smuggled = POST + b"content-length: 13\r\n\r\n" + BODY
    with Client(bench.port) as client:
        client.send(POST + b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled)
        assert client.answer().status == 400
        assert client.closed()
    assert worker.seen == []


def test_a_good_request_in_front_of_a_bad_one_is_answered_first(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))
    with Client(bench.port) as client:
        client.send(POST + b"content-length: 13\r\n\r\n" + BODY + b"NONSENSE\r\n\r\n")
        assert [client.answer().status, client.answer().status] == [200, 400]
        assert client.closed()


def test_bytes_after_a_last_request_do_no_harm(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))
    with Client(bench.port) as client:
        client.send(
            POST + b"connection: close\r\ncontent-length: 13\r\n\r\n" + BODY + b"GET /health HTTP/1.1\r\n"
        )
        assert client.answer().status == 200
        assert client.closed()


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
def test_an_upgrade_is_ignored_and_its_body_is_read(bench: Bench, upgrade: bytes) -> None:
    """Java's client asks for h2c with every first request."""
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    fields = b"connection: Upgrade\r\nupgrade: " + upgrade + b"\r\ncontent-length: 13\r\n\r\n"
    with Client(bench.port) as client:
        for _ in range(2):
            client.send(POST + fields + BODY)
            assert client.answer().status == 200
    assert [seen.body for seen in worker.seen] == [BODY, BODY]


def test_connect_is_refused(bench: Bench) -> None:
    with Client(bench.port) as client:
        client.send(b"CONNECT x:443 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert client.answer().status == 405
        assert client.closed()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None), (b"{", None), (b"[]", None), (b'"m"', None), (b'{"model":"m"', None), (b"\xff\xfe{}", None),
        (b'{"model": "m", "x": }', None), (b"[" * 100_000, None), (b"{}", "model"), (b'{"model": 5}', "model"),
        (b'{"model": null}', "model"), (b'{"model": ""}', "model"), (b'{"model": ["m"]}', "model"),
        (b'{"messages": [{"model": "m"}]}', "model"), (b'{"n": ' + b"9" * 5000 + b"}", None),
    ],
)  # fmt: skip
def test_bad_bodies_are_400(bench: Bench, body: bytes, param: str | None) -> None:
    bench.serve(bench.worker().replica("m"))
    answer = ask(bench.port, "POST", "/v1/chat/completions", body)
    assert answer.status == 400
    assert (answer.error["type"], answer.error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/chat/completions", 405, "POST, OPTIONS"),
        ("POST", "/v1/models", 405, "GET, HEAD, OPTIONS"),
        ("DELETE", "/health", 405, "GET, HEAD, OPTIONS"),
        ("GET", "/", 404, None),
        ("GET", "//chat/completions/", 405, "POST, OPTIONS"),
        ("POST", "/v1/chat/completion", 404, None),
        ("POST", "/v1/engines//embeddings", 404, None),
        ("POST", "/v1/../v1/completions", 404, None),
    ],
)
def test_wrong_paths_and_methods(
    bench: Bench, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = ask(bench.port, method, path)
    assert (answer.status, answer.headers.get("allow")) == (status, allow)
    assert answer.error["message"]


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(bench: Bench) -> None:
    with Client(bench.port) as client:
        client.send(POST + b"content-length: 200001\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        assert client.closed()


def test_a_client_that_sends_a_large_body_anyway_can_read_its_413(bench: Bench) -> None:
    """No reset destroys the answer while the client still writes."""
    with Client(bench.port) as client:
        client.send(POST + b"content-length: 2000000\r\n\r\n")
        client.send(bytes(1_000_000))
        assert client.answer().status == 413


def test_a_chunked_body_without_end_is_413(bench: Bench) -> None:
    with Client(bench.port) as client:
        client.send(POST + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(30):
            client.send(b"2000\r\n" + bytes(0x2000) + b"\r\n")
        assert client.answer().status == 413


def test_expect_continue_is_not_promised_to_a_body_that_is_too_large(bench: Bench) -> None:
    with Client(bench.port) as client:
        client.send(POST + b"expect: 100-continue\r\ncontent-length: 200001\r\n\r\n")
        assert client.head()[0] == 413


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 70_000,
        b"GET /" + b"a" * 70_000,
        b"GET /health HTTP/1.1\r\nhost: localhost\r\n"
        + b"".join(b"x%d: a\r\n" % n for n in range(200))
        + b"\r\n",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"y: b\r\n" * 20_000,
    ],
    ids=["one large field", "a field without end", "a path without end", "many fields", "fields without end"],
)
def test_large_heads_are_431(bench: Bench, head: bytes) -> None:
    with Client(bench.port) as client:
        client.send(head)
        assert client.answer().status == 431
        assert client.closed()


def test_a_trailer_without_end_is_refused(bench: Bench) -> None:
    with Client(bench.port) as client:
        client.send(POST + b"transfer-encoding: chunked\r\n\r\n0\r\nx: ")
        for _ in range(6):
            client.send(b"a" * 20_000)
        assert client.answer().status == 431


def test_header_injection_by_request_id_or_origin_is_not_possible(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))
    with Client(bench.port) as client:
        client.send(
            b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-request-id: a\tb\r\norigin: https://app.example\tx\r\n\r\n"
        )
        answer = client.answer()
    assert answer.headers["x-request-id"].startswith("req-")
    assert "access-control-allow-origin" not in answer.headers


def test_a_slow_head_is_not_waited_for_with_a_worker(bench: Bench) -> None:
    """Half a request costs a connection and nothing else."""
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    clients = [Client(bench.port) for _ in range(50)]
    for client in clients:
        client.send(POST + b"content-length: 13\r\n\r\n" + BODY[:5])
    assert ask(bench.port, "POST", "/v1/completions", BODY).status == 200
    for client in clients:
        client.sock.close()
    assert len(worker.seen) == 1
    wait_until(lambda: bench.metric("connections") == 1)


def test_cors_for_the_origins_that_were_named(bench: Bench) -> None:
    bench.serve(bench.worker().replica("m"))
    origin = {"Origin": "https://app.example"}
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, x-own",
    }
    preflight = ask(bench.port, "OPTIONS", "/v1/chat/completions", headers=origin | asked)
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert preflight.headers["access-control-allow-headers"] == "authorization, x-own"
    for answer in (
        ask(bench.port, "POST", "/v1/completions", {"model": "m"}, origin),
        ask(bench.port, "POST", "/v1/completions", {"model": "nobody"}, origin),
    ):
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
    stranger = ask(bench.port, "POST", "/v1/completions", {"model": "m"}, {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers


# What OpenAI's JavaScript SDK sends with every request from a page (openai-node, dangerouslyAllowBrowser).
_SDK_FIELDS = (
    "authorization,content-type,openai-organization,openai-project,x-stainless-arch,x-stainless-helper-method,"
    "x-stainless-lang,x-stainless-os,x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
    "x-stainless-runtime-version,x-stainless-timeout"
)


def test_an_openai_sdk_in_a_browser_gets_through(tmp_path: Path) -> None:
    """A browser sends no key with its preflight, and shows a page only the fields that are exposed."""
    keys = tmp_path / "keys"
    keys.write_text("page: sk-page\n")
    keys.chmod(0o600)
    key, origin = {"Authorization": "Bearer sk-page"}, {"Origin": "https://app.example"}
    stainless = dict.fromkeys(_SDK_FIELDS.split(",")[4:], "js")
    with running("--cors-origin", "*", "--api-keys-file", str(keys)) as bench:
        bench.gateway.auth = key
        bench.controller.set(bench.worker().replica("m"))
        bench.gateway.until_serving("m")
        for method, path in (
            ("POST", "/v1/chat/completions"), ("POST", "/v1/responses"), ("GET", "/v1/models"), ("GET", "/v1/models/m"),
        ):  # fmt: skip
            asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": _SDK_FIELDS}
            preflight = ask(bench.port, "OPTIONS", path, headers=origin | asked)
            assert preflight.status == 204
            assert method in preflight.headers["access-control-allow-methods"].split(", ")
            allowed = preflight.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
            assert set(_SDK_FIELDS.split(",")) <= set(allowed)
            body = {"model": "m", "messages": []} if method == "POST" else None
            served = ask(bench.port, method, path, body, origin | key | stainless)
            refused = ask(bench.port, method, path, body, origin | stainless)
            assert (served.status, refused.status) == (200, 401)
            for answer in (served, refused):
                assert answer.headers["access-control-allow-origin"] == "https://app.example"
                exposed = answer.headers["access-control-expose-headers"].split(", ")
                assert {"x-request-id", "retry-after"} <= set(exposed)
                assert answer.headers["x-request-id"]


def test_a_workers_own_cors_fields_do_not_pass(bench: Bench) -> None:
    def behave(talk: Talk, seen: Seen) -> None:
        talk.reply({}, extra="access-control-allow-origin: *\r\n")

    bench.serve(bench.worker(behave).replica("m"))
    answer = ask(bench.port, "POST", "/v1/completions", {"model": "m"}, {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
