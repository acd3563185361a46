"""An exchange's life as histories: what happens to it, the phases it goes through, and what its client gets.

Steps: ``accept`` and ``refuse`` are a replica's answers to a connection; ``reset`` breaks the present one; ``leave`` and
``stop`` are the client's and the gateway's; ``free`` gives the only slot back; ``silent`` gives the replica up;
``turn`` waits until a suspect's turn has come; ``quiet`` lets so much time pass that a stream gets a comment. Anything
else is bytes from the replica.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from llmlaunch.gateway.dialects.dialect import Dialect, TranslatedRequest
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.exchange.exchange import ExchangeContext
from llmlaunch.gateway.exchange.keep_alive import KEEP_ALIVE_S
from llmlaunch.gateway.exchange.lifecycle import ExchangePhase
from llmlaunch.gateway.exchange.replica_connections import ReplicaConnections
from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.http1.client_connection import ClientConnection
from llmlaunch.gateway.http1.coalesce import Coalescer
from llmlaunch.gateway.http1.framing import BodyFraming, parse_head
from llmlaunch.gateway.http1.head_cache import HeadCache
from llmlaunch.gateway.http1.upstream import UpstreamConnection
from llmlaunch.gateway.multiprocess.shared_counters import SharedCounters
from llmlaunch.gateway.observe.metrics import GatewayMetrics
from llmlaunch.gateway.observe.outcome import CLIENT_LEFT, RequestOutcome
from llmlaunch.gateway.paths import endpoint
from llmlaunch.gateway.payload.content_rewriter import WholeBody
from llmlaunch.gateway.payload.model_field import InvalidBody
from llmlaunch.gateway.request import ClientRequest
from llmlaunch.gateway.routing import route_table
from llmlaunch.gateway.routing.route_table import RoutedReplica, RouteTable
from llmlaunch.gateway.routing.router import Router
from tests.support.exchanges import CheckedExchange

N, W, C, R, S, H, T, E = ExchangePhase  # in the order of their lives

JSON = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
EVENTS = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT, LAST = "8\r\ndata: 1\n\r\n", "0\r\n\r\n"
FIRST, COMMENT = "9\r\ndata: 1\n\n\r\n", "6\r\n: ok\n\n\r\n"
LOADING = "HTTP/1.1 503 Loading\r\ncontent-length: 0\r\n\r\n"


BEGUN = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
"""The head of a stream as the gateway itself begins it."""


class Client:
    """As much of a ClientConnection as an exchange uses."""

    peer = "127.0.0.1"

    def __init__(self) -> None:
        self.transport = self
        self.written = b""
        self.end = ""
        """How its answer ended: ``replied``, ``kept``, ``closed``, ``cut`` or ``reset``."""

    def write(self, data: bytes) -> None:
        assert not self.end
        self.written += data

    def begin_stream(self, request: ClientRequest) -> None:
        assert not self.written
        self.written = BEGUN

    def reply(self, request: ClientRequest, reply: Reply) -> None:
        assert not self.written
        self.end = "replied"

    def finished(self, keep: bool) -> None:
        assert not self.end
        self.end = "kept" if keep else "closed"

    def abort(self, reset: bool) -> None:
        self.end = "reset" if reset else "cut"


class Transport(asyncio.Transport):
    def __init__(self, written: list[bytes]) -> None:
        super().__init__()
        self.written = written

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None: ...

    def close(self) -> None: ...


class Replicas:
    """Connections whose other ends are the history. Implements ``upstream.ConnectionOwner``."""

    def __init__(self, pooled: bool) -> None:
        self.heads: HeadCache[Any] = HeadCache()
        self.events = Coalescer(lambda turn: None)
        self.asked: asyncio.Future[None] | None = None
        self.received: list[bytes] = []
        """The requests that replicas got."""
        self.present: UpstreamConnection
        self.idle = [self.connection("http://a:1")] if pooled else []
        for connection in self.idle:
            connection.used = True

    def connection(self, key: str) -> UpstreamConnection:
        self.present = UpstreamConnection(self, key, b"host: h\r\n")
        self.present.connection_made(Transport(self.received))
        return self.present

    def take(self, key: str) -> UpstreamConnection | None:
        return self.idle.pop() if self.idle else None

    async def connect(self, replica: RoutedReplica) -> UpstreamConnection:
        self.asked = asyncio.get_running_loop().create_future()
        await self.asked
        return self.connection(replica.key)

    def give(self, connection: UpstreamConnection) -> None: ...

    def forget(self, connection: UpstreamConnection) -> None: ...


def routes(replicas: int, slots: int | None) -> RouteTable:
    rows = [
        {"worker_name": f"http://{name}:1", "model_names": ["m"], "max_concurrency": slots}
        for name in "abc"[:replicas]
    ]
    answer = {
        "epoch": "e", "rev": 1, "settled": True, "dispatch": "round_robin", "replicas": rows, "expected": ["m"],
    }  # fmt: skip
    return route_table.merge(RouteTable(), route_table.parse(answer)[0])


class Shouting:
    """A dialect in capitals. Implements ``dialect.Dialect``."""

    native = True
    streams_events = False

    def request(self, body: bytes) -> TranslatedRequest:
        if b"?" in body:
            raise InvalidBody("questions are not allowed", "model")
        return TranslatedRequest(b"/v1/completions", body.lower(), self.translator)

    def translator(self, status: int, media_type: bytes) -> WholeBody:
        assert media_type == b"application/json"

        def rewrite(body: bytes) -> bytes:
            if body == b"[]":
                raise InvalidResponse("it is no object")
            return b"%d %b" % (status, body.upper())

        return WholeBody(rewrite, b"text/loud")

    def error(self, reply: Reply, identity: bytes) -> Reply:
        return reply

    def native_error(self, status: int) -> WholeBody:
        return self.translator(status, b"application/json")

    def interruption(self, message: str) -> bytes:
        return message.upper().encode()


async def live(
    steps: Sequence[str],
    replicas: int = 1,
    pooled: bool = False,
    busy: bool = False,
    received: list[bytes] | None = None,
    dialect: Dialect | None = None,
    body: bytes = b'{"model": "m"}',
) -> tuple[CheckedExchange, Client, list[RequestOutcome], Router]:
    router = Router(lambda: 100.0)
    router.adopt(routes(replicas, slots=1 if busy else None))
    connections, client, outcomes = Replicas(pooled), Client(), list[RequestOutcome]()
    spawn: Callable[..., asyncio.Task[None]] = asyncio.get_running_loop().create_task
    context = ExchangeContext(
        router, cast(ReplicaConnections, connections), GatewayMetrics(SharedCounters(1 << 16)), None,
        lambda origin: b"", lambda: 100.0, spawn, outcomes.append,
    )  # fmt: skip
    request = ClientRequest(b"POST", b"/v1/completions", b"", True, True, 99.0, b"id")
    request.body, request.endpoint = body, endpoint(b"/v1/completions")
    if dialect is not None:
        request.endpoint = replace(request.endpoint, upstream=b"/loud", dialect=dialect)
    if received is not None:
        connections.received = received
    other = CheckedExchange(context, cast(ClientConnection, Client()), request, "m")
    if busy:
        other.start()
    exchange = CheckedExchange(context, cast(ClientConnection, client), request, "m")
    exchange.start()
    clock = 100.0
    for step in steps:
        await asyncio.sleep(0)
        if step in ("accept", "refuse"):
            assert connections.asked is not None
            if step == "accept":
                connections.asked.set_result(None)
            else:
                connections.asked.set_exception(ConnectionRefusedError(111, "refused"))
            await asyncio.sleep(0)
        elif step == "reset":
            connections.present.connection_lost(ConnectionResetError("reset"))
        elif step == "leave":
            exchange.cancel()
        elif step == "stop":
            exchange.shut_down()
        elif step == "silent":
            exchange.gave_up_replica(60.0)
        elif step == "quiet":
            clock += KEEP_ALIVE_S
            exchange.keep_alive(clock)
        elif step == "turn":
            async with asyncio.timeout(10):
                while exchange.phase is W:
                    await asyncio.sleep(0.001)
        elif step == "free":
            other.cancel()
            outcomes.clear()
        else:
            connections.present.data_received(step.encode())
    await asyncio.sleep(0)
    return exchange, client, outcomes, router


HISTORIES = {
    "answered": (["accept", JSON, "{}"], {}, [N, C, S, H, T, E], 200, "kept"),
    "a pooled connection": ([JSON + "{}"], {"pooled": True}, [N, S, H, T, E], 200, "kept"),
    "a pooled connection that was stale": (
        ["reset", "accept", JSON, "{}"], {"pooled": True}, [N, S, R, S, H, T, E], 200, "kept",
    ),
    "a pooled connection that broke because its replica died": (
        ["reset", "refuse", "turn", "accept", JSON, "{}"], {"pooled": True, "replicas": 2},
        [N, S, R, W, C, S, H, T, E], 200, "kept",
    ),
    "a stream": (["accept", EVENTS, EVENT, EVENT, LAST], {}, [N, C, S, H, T, E], 200, "kept"),
    "nobody else takes it": (["refuse"], {}, [N, C, E], 503, "replied"),
    "another replica takes it": (
        ["refuse", "accept", JSON, "{}"], {"replicas": 2}, [N, C, C, S, H, T, E], 200, "kept",
    ),
    "three times is enough": (["refuse", "refuse", "refuse"], {"replicas": 3}, [N, C, C, C, E], 503, "replied"),
    "it dies while it reads the prompt": (
        ["accept", "reset", "turn", "accept", JSON, "{}"], {"replicas": 2}, [N, C, S, W, C, S, H, T, E], 200, "kept",
    ),
    "it dies after the head of its answer": (
        ["accept", JSON, "reset", "turn", "accept", JSON, "{}"], {"replicas": 2},
        [N, C, S, H, W, C, S, H, T, E], 200, "kept",
    ),
    "it falls silent": (
        ["accept", "silent", "turn", "accept", JSON, "{}"], {"replicas": 2}, [N, C, S, W, C, S, H, T, E], 200, "kept",
    ),
    "a second one dies with it": (
        ["accept", "reset", "turn", "accept", "reset"], {"replicas": 3}, [N, C, S, W, C, S, E], 500, "replied",
    ),
    "it is loading, and another one is not": (
        ["accept", LOADING, "accept", JSON, "{}"], {"replicas": 2}, [N, C, S, C, S, H, T, E], 200, "kept",
    ),
    "it is loading, and nobody else is there": (["accept", LOADING], {}, [N, C, S, H, T, E], 503, "kept"),
    "a stream that breaks is told so": (["accept", EVENTS, EVENT, "reset"], {}, [N, C, S, H, T, E], 200, "closed"),
    "a document that breaks is cut": (["accept", JSON, "{", "reset"], {}, [N, C, S, H, T, E], 200, "cut"),
    "not HTTP": (["accept", "nonsense\r\n\r\n"], {"replicas": 2}, [N, C, S, E], 502, "replied"),
    "broken chunks in a stream": (["accept", EVENTS, EVENT, "xx\r\n"], {}, [N, C, S, H, T, E], 200, "closed"),
    "the client leaves before": (["leave"], {}, [N, C, E], CLIENT_LEFT, ""),
    "the client leaves within": (["accept", EVENTS, EVENT, "leave"], {}, [N, C, S, H, T, E], CLIENT_LEFT, ""),
    "the gateway stops before": (["accept", EVENTS, "stop"], {}, [N, C, S, H, E], 503, "replied"),
    "the gateway stops within": (["accept", EVENTS, EVENT, "stop"], {}, [N, C, S, H, T, E], 200, "closed"),
    "it waits for a slot": (["free", "accept", JSON, "{}"], {"busy": True}, [N, W, C, S, H, T, E], 200, "kept"),
    "the client leaves the queue": (["leave"], {"busy": True}, [N, W, E], CLIENT_LEFT, ""),
    "the gateway stops while it waits": (["stop"], {"busy": True}, [N, W, E], 503, "replied"),
}  # fmt: skip


@pytest.mark.parametrize("name", HISTORIES)
def test_histories(name: str) -> None:
    steps, more, phases, status, end = HISTORIES[name]
    settings = cast(dict[str, Any], more)

    async def play() -> None:
        exchange, client, outcomes, router = await live(steps, **settings)
        assert exchange.phases == phases
        assert client.end == end
        assert [outcome.status for outcome in outcomes] == ([] if status is None else [status])
        if phases[-1] is E and not settings.get("busy"):
            assert not router.in_flight(), "its slot was not given back"

    asyncio.run(play())


def test_what_a_stream_that_broke_ends_with() -> None:
    async def play() -> None:
        _, client, _, _ = await live(["accept", EVENTS, EVENT, "reset"])
        assert b"data: 1" in client.written
        assert b"stream_interrupted" in client.written

    asyncio.run(play())


def test_an_outcome_tells_what_happened() -> None:
    async def play() -> None:
        usage = '{"usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}}'
        head = JSON.replace("length: 2", f"length: {len(usage)}")
        _, _, (outcome,), _ = await live(["refuse", "accept", head, usage], replicas=2)
        assert (outcome.model, outcome.counted_model, outcome.attempts) == ("m", "m", 2)
        assert (outcome.tokens, outcome.duration_s, outcome.first_byte_s) == ((3, 5), 1.0, 1.0)
        assert outcome.replica in ("http://a:1", "http://b:1")

    asyncio.run(play())


STREAM: dict[str, Any] = {"body": b'{"model": "m", "stream": true}'}
PLAIN_EVENTS = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
SILENT_STREAMS: dict[str, tuple[list[str], dict[str, Any], list[ExchangePhase], int, str]] = {
    "during the prefill": (
        ["accept", "quiet", "quiet", EVENTS, FIRST, LAST], {}, [N, C, S, H, T, E], 200, "||data: 1",
    ),
    "after a head": (["accept", EVENTS, "quiet", FIRST + LAST], {}, [N, C, S, H, T, E], 200, "|data: 1"),
    "in the queue": (
        ["quiet", "free", "accept", EVENTS, FIRST, LAST], {"busy": True}, [N, W, C, S, H, T, E], 200, "|data: 1",
    ),
    "later": (["accept", EVENTS, FIRST, "quiet", "quiet", FIRST, LAST], {}, [N, C, S, H, T, E], 200, "data: 1|data: 1"),
    "not within an event": (
        ["accept", EVENTS, EVENT, "quiet", "quiet", "1\r\n\n\r\n", "quiet", "quiet", LAST], {}, [N, C, S, H, T, E], 200,
        "data: 1|",
    ),
    "a replica that dies before its first content is replaced": (
        ["accept", "quiet", EVENTS, "reset", "turn", "accept", EVENTS, FIRST, LAST], {"replicas": 2},
        [N, C, S, H, W, C, S, H, T, E], 200, "|data: 1",
    ),
    "so is one that only commented": (
        ["accept", EVENTS, COMMENT[:5], COMMENT[5:] + COMMENT, "quiet", "reset", "turn", "accept", EVENTS, FIRST, LAST],
        {"replicas": 2}, [N, C, S, H, W, C, S, H, T, E], 200, "|data: 1",
    ),
    "a stream with a length": (
        ["accept", "quiet", PLAIN_EVENTS + "content-length: 9\r\n\r\n", "data: 1\n", "\n"], {}, [N, C, S, H, T, E], 200,
        "|data: 1",
    ),
    "a length that came before": (
        ["accept", PLAIN_EVENTS + "content-length: 9\r\n\r\n", "quiet", "data: 1\n\n"], {}, [N, C, S, H, T, E], 200,
        "|data: 1",
    ),
    "only comments": (["accept", "quiet", EVENTS, COMMENT, LAST], {}, [N, C, S, H, T, E], 200, "|: ok"),
    "refused by the replica": (
        ["accept", "quiet", JSON.replace("200 OK", "400 X"), "no"], {}, [N, C, S, H, T, E], 400,
        '|data: {"error": {"message": "no", "type": "invalid_request_error", "param": null, "code": null}}',
    ),
    "no stream": (["accept", "quiet", JSON, "{}"], {}, [N, C, S, H, T, E], 200, "application/json instead of a stream"),
    "nobody else takes it": (["quiet", "refuse"], {}, [N, C, E], 503, '"code": "replica_unavailable"'),
    "not HTTP": (["accept", "quiet", "nonsense\r\n\r\n"], {}, [N, C, S, E], 502, '"code": "bad_answer"'),
    "the gateway stops": (["accept", "quiet", "stop"], {}, [N, C, S, E], 503, '"code": "stopping"'),
}  # fmt: skip


@pytest.mark.parametrize("name", SILENT_STREAMS)
def test_a_silent_stream_begins_without_its_replica(name: str) -> None:
    steps, more, phases, status, expected = SILENT_STREAMS[name]

    async def play() -> None:
        exchange, client, (outcome,), _ = await live(steps, **STREAM | more)
        assert exchange.phases == phases
        assert (outcome.status, client.end) == (status, "kept")
        assert (outcome.first_byte_s is not None) is (T in phases)
        head, _, content = client.written.partition(b"\r\n\r\n")
        body = BodyFraming(parse_head(head + b"\r\n\r\n"))
        shown = body.decode(content).decode().replace(": keep-alive\n\n", "|").replace("\n\n", "")
        assert body.done
        assert shown == expected or (expected in shown and shown.startswith("|data: {"))

    asyncio.run(play())


@pytest.mark.parametrize(
    ("body", "steps"),
    [
        (b'{"model": "m"}', ["accept", "quiet", JSON, "{}"]),
        (b'{"model": "m", "tools": [{"stream": true}]}', ["accept", "quiet", JSON, "{}"]),
        (STREAM["body"], ["accept", JSON.replace("200 OK", "400 X"), "quiet", "no"]),
    ],
)
def test_any_other_answer_is_waited_for(body: bytes, steps: list[str]) -> None:
    async def play() -> None:
        _, client, _, _ = await live(steps, body=body)
        assert b"keep-alive" not in client.written
        assert b"content-length" in client.written

    asyncio.run(play())


def test_a_comment_that_would_be_translated_is_no_content_either() -> None:
    async def play() -> None:
        steps = ["accept", MISSING, "accept", JSON.replace(": 2", ": 7"), ": hm\n", "{}"]
        exchange, client, _, _ = await live(steps[:-1], **LOUD)
        assert exchange.phase is H
        assert not client.written
        _, client, _, _ = await live(steps, **LOUD)
        assert client.written.endswith(b"200 : HM\n{}")

    asyncio.run(play())


def test_comments_do_not_show_that_a_replica_answers() -> None:
    async def play() -> None:
        exchange, _, _, router = await live(["accept", EVENTS, COMMENT], **STREAM)
        assert not exchange.made_progress()
        assert exchange.awaited().size
        assert router.health("http://a:1").answers_begun == 0
        exchange, _, _, router = await live(["accept", EVENTS, COMMENT, FIRST], **STREAM)
        assert exchange.made_progress()
        assert router.health("http://a:1").answers_begun == 1

    asyncio.run(play())


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            '{"detail":  "no"}',
            {"message": "no", "type": "invalid_request_error", "param": None, "code": None},
        ),
        ('{"error":  {"message": "no"}}', {"message": "no"}),
    ],
)
def test_an_error_reaches_the_client_in_openais_envelope(body: str, error: dict[str, Any]) -> None:
    async def play() -> None:
        head = f"HTTP/1.1 422 X\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n"
        _, client, (outcome,), _ = await live(["accept", head, body[:5], body[5:]])
        begin, _, content = client.written.partition(b"\r\n\r\n")
        assert json.loads(content)["error"] == error
        assert b"content-length: %d" % len(content) in begin
        assert begin.startswith(b"HTTP/1.1 422 X\r\n")
        kept = content == body.encode()
        assert kept is ("code" not in error)
        assert (b"text/plain" in begin) is kept
        assert (outcome.status, client.end) == (422, "kept")

    asyncio.run(play())


MISSING = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
LOUD: dict[str, Any] = {"dialect": Shouting(), "body": b'{"model": "m", "PROMPT": 1}'}


def test_a_replica_that_has_the_dialect_is_asked_in_it() -> None:
    async def play() -> None:
        received: list[bytes] = []
        _, client, _, _ = await live(["accept", JSON, "{}"], received=received, **LOUD)
        (request,) = received
        assert request.startswith(b"POST /loud ")
        assert b'"PROMPT"' in request
        assert client.written.endswith(b"\r\n\r\n{}")

    asyncio.run(play())


def test_for_a_replica_without_the_dialect_the_same_request_is_translated() -> None:
    async def play() -> None:
        received: list[bytes] = []
        steps = ["accept", MISSING, "accept", JSON, "{}"]
        exchange, client, (outcome,), router = await live(steps, received=received, **LOUD)
        assert exchange.phases == [N, C, S, C, S, H, T, E]
        assert received[1].startswith(b"POST /v1/completions ")
        assert b'"prompt"' in received[1]
        assert client.written.endswith(b"content-type: text/loud\r\ncontent-length: 6\r\n\r\n200 {}")
        assert (outcome.attempts, client.end) == (1, "kept")
        assert router.health("http://a:1").lacks == {b"/loud"}
        assert not router.in_flight()

    asyncio.run(play())


def test_a_model_that_is_missing_in_both_apis_says_nothing_of_the_endpoint() -> None:
    async def play() -> None:
        head = JSON.replace("200 OK", "404 Not Found")
        _, client, _, router = await live(["accept", MISSING, "accept", head, "{}"], **LOUD)
        assert client.written.endswith(b"\r\n\r\n404 {}")
        assert not router.health("http://a:1").lacks

    asyncio.run(play())


def test_what_cannot_be_translated_is_refused() -> None:
    async def play() -> None:
        settings = LOUD | {"body": b'{"model": "m?"}'}
        _, client, (outcome,), _ = await live(["accept", MISSING, "accept"], **settings)
        assert (outcome.status, client.end) == (400, "replied")

    asyncio.run(play())


def test_an_answer_that_cannot_be_translated_is_invalid() -> None:
    async def play() -> None:
        _, client, (outcome,), router = await live(["accept", MISSING, "accept", JSON, "[]"], **LOUD)
        assert (outcome.status, client.end) == (502, "replied")
        assert not router.in_flight()

    asyncio.run(play())


def test_a_compressed_answer_cannot_be_translated() -> None:
    async def play() -> None:
        head = JSON.replace("\r\n\r\n", "\r\ncontent-encoding: gzip\r\n\r\n")
        _, client, (outcome,), _ = await live(["accept", MISSING, "accept", head], **LOUD)
        assert (outcome.status, client.end) == (502, "replied")

    asyncio.run(play())


def test_a_stream_in_a_dialect_that_broke_ends_in_the_dialect() -> None:
    async def play() -> None:
        _, client, _, _ = await live(["accept", EVENTS, EVENT, "reset"], **LOUD)
        assert b"THE ANSWER WAS INTERRUPTED" in client.written

    asyncio.run(play())
