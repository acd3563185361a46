"""The HTTP client against servers that answer well, badly, too much and not at all."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from llmlaunch.common import http_client
from llmlaunch.common.http_client import (
    CannotConnect,
    ConnectionBroke,
    HttpError,
    InvalidAnswer,
    Response,
    TimedOut,
    TlsFailed,
    TooLarge,
)
from tests.support.ports import free_port

HOST = "127.0.0.1"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[int]:
    """Its port. Waits at the end until every connection is served."""
    served: list[asyncio.Task[None]] = []

    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(closing(reader, writer)))

    running = await asyncio.start_server(accept, HOST, 0)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()
        await asyncio.wait_for(asyncio.gather(*served), 10)
        await running.wait_closed()


def saying(*pieces: bytes, heard: list[bytes] | None = None, hangs: bool = False) -> Serve:
    """Reads a head, sends ``pieces`` one by one, and hangs up; or waits until it is left."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(head)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if hangs:
            await reader.read()

    return serve


def answer(*pieces: bytes, hangs: bool = False, **how: Any) -> Response:
    async def run() -> Response:
        async with server(saying(*pieces, hangs=hangs)) as port:
            return await http_client.ask(
                HOST, port, "GET", "/", **{"timeout_s": 10.0, "body_limit": 1000} | how
            )

    return asyncio.run(run())


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\ncontent-length:3 \r\n\r\nabc", 200, b"abc"),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.0 503 X\r\n\r\nto the end", 503, b"to the end"),
        (CHUNKED + b'3;a="b"\r\nabc\r\n0a\r\n0123456789\r\n0\r\n\r\n', 200, b"abc0123456789"),
        (CHUNKED + b"1\r\na\r\n0\r\nx-sum: 1\r\n\r\n", 200, b"a"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 X\r\nContent-Length: 7\r\n\r\n", 304, b""),
        (
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 404 X\r\ncontent-length: 1\r\n\r\nx",
            404,
            b"x",
        ),
    ],
)
def test_every_framing_however_it_is_cut(data: bytes, status: int, body: bytes) -> None:
    for pieces in ([data], one_by_one(data)):
        got = answer(*pieces)
        assert (got.status, got.body) == (status, body)


def test_an_answer_ends_where_its_framing_says() -> None:
    """Not where the server hangs up; bytes behind the end belong to no answer."""
    for data in (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", CHUNKED + b"2\r\nok\r\n0\r\n\r\n"):
        assert answer(data, hangs=True).body == b"ok"
        assert answer(data + b"more than it said").body == b"ok"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ConnectionBroke),
        (b"HTTP/1.1 200", ConnectionBroke),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", ConnectionBroke),
        (CHUNKED + b"3\r\nab", ConnectionBroke),
        (CHUNKED + b"3\r\nabc", ConnectionBroke),
        (CHUNKED + b"3\r\nabc\r\n", ConnectionBroke),
        (CHUNKED + b"3\r\nabc\r\n0\r\n", ConnectionBroke),
        (b"SSH-2.0-OpenSSH\r\n\r\n", InvalidAnswer),
        (b"HTTP/2 200 OK\r\n\r\n", InvalidAnswer),
        (b"HTTP/1.1 abc X\r\n\r\n", InvalidAnswer),
        (b"HTTP/1.1 200 OK\r\nno field\r\n\r\n", InvalidAnswer),
        (b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n", InvalidAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", InvalidAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", InvalidAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n", InvalidAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", InvalidAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na", InvalidAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", InvalidAnswer),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", InvalidAnswer),
        (CHUNKED + b"x\r\n", InvalidAnswer),
        (CHUNKED + b"-1\r\n", InvalidAnswer),
        (CHUNKED + b"2\r\nabc\r\n", InvalidAnswer),
        (CHUNKED + b"0\r\nno trailer\r\n\r\n", InvalidAnswer),
        (b"HTTP/1.1 100 X\r\n\r\n" * 100, InvalidAnswer),
    ],
)
def test_what_is_not_an_answer(data: bytes, error: type[HttpError]) -> None:
    with pytest.raises(error) as caught:
        answer(data)
    assert caught.type is error


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\na",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * 1001,
        CHUNKED + b"3e9\r\na",
        CHUNKED + b"1\r\na\r\n" * 1001,
        CHUNKED + b"1;" + b"y" * 70_000,
        CHUNKED + b"0\r\n" + b"a: b\r\n" * 20_000,
    ],
)
def test_what_is_too_large_is_not_awaited(data: bytes) -> None:
    with pytest.raises(TooLarge):
        answer(data, hangs=not data.endswith(b"y" * 1001))


def test_limits_are_the_callers() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n012345678"
    assert answer(data, body_limit=9).body == b"012345678"
    assert answer(data, body_limit=4, cut=True).body == b"0123"
    with pytest.raises(TooLarge):
        answer(data, head_limit=20)


def test_the_request() -> None:
    heard: list[bytes] = []

    async def run() -> None:
        async with server(saying(b"HTTP/1.1 204 X\r\n\r\n", heard=heard)) as port:
            hows: list[dict[str, Any]] = [{}, {"content": b"{}", "token": "k"}]
            for how in hows:
                await http_client.ask(HOST, port, "POST", "/x?y=1", timeout_s=10, body_limit=0, **how)
            plain = f"POST /x?y=1 HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\nAccept: application/json\r\n"
            more = "Authorization: Bearer k\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
            assert heard == [f"{plain}\r\n".encode(), f"{plain}{more}\r\n".encode()]

    asyncio.run(run())


def test_a_body_is_json_or_none() -> None:
    head = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n"
    assert answer(head + b'{"a": 1}').json() == {"a": 1}
    assert answer(head).headers == (("x-a", "1"),)
    for body in (b"not json", b"", b"\xff", b"[" * 100_000):
        assert answer(head + body, body_limit=1 << 20).json() is None


def test_silence_ends_in_time() -> None:
    for pieces in ((), (b"HTTP/1.1 200 OK\r\n",), (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na",)):
        with pytest.raises(TimedOut, match=r"no answer within 0\.1 s"):
            answer(*pieces, hangs=True, timeout_s=0.1)


def test_nobody_listens() -> None:
    async def run() -> None:
        for call in (
            http_client.ask(HOST, free_port(), "GET", "/", timeout_s=10, body_limit=0),
            http_client.check_connection(HOST, free_port(), timeout_s=10),
        ):
            with pytest.raises(CannotConnect) as caught:
                await call
            assert caught.value.refused
            assert isinstance(caught.value, OSError)
        with pytest.raises(CannotConnect) as caught:
            await http_client.check_connection("a..b", 1, timeout_s=10)
        assert not caught.value.refused

    asyncio.run(run())


def test_a_knock_asks_nothing() -> None:
    heard: list[bytes] = []
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        left.set()

    async def run() -> None:
        async with server(serve) as port:
            await http_client.check_connection(HOST, port, timeout_s=10)
            await asyncio.wait_for(left.wait(), 10)

    asyncio.run(run())
    assert heard == [b""]


def test_somebody_who_does_not_speak_tls_is_not_nobody() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 X\r\n\r\n")

    async def run() -> None:
        async with server(serve) as port:
            with pytest.raises(TlsFailed):
                await http_client.check_connection(HOST, port, timeout_s=10, tls=ssl.create_default_context())

    asyncio.run(run())


def test_a_stream_is_given_as_it_comes_and_ends_when_it_is_left() -> None:
    go, left = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + b"3\r\none")  # the chunk's own line end is still to come
        await go.wait()
        writer.write(b"\r\n3\r\ntwo\r\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.set()

    async def run() -> None:
        async with server(serve) as port:
            async with http_client.exchange(HOST, port, "GET", "/", connect_s=10, read_s=10) as incoming:
                assert await incoming.piece() == b"one"
                go.set()
                assert await incoming.piece() == b"two"
                assert not left.is_set()
            await asyncio.wait_for(left.wait(), 10)

    asyncio.run(run())


def test_a_stream_that_falls_silent() -> None:
    async def run() -> None:
        async with (
            server(saying(CHUNKED + b"3\r\none\r\n", hangs=True)) as port,
            http_client.exchange(HOST, port, "GET", "/", read_s=0.1) as incoming,
        ):
            assert not incoming.until_close
            assert await incoming.piece() == b"one"
            with pytest.raises(TimedOut):
                await incoming.piece()

    asyncio.run(run())
