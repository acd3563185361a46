"""One HTTP/1.1 request on a connection of its own, with every wait and every size bounded; framing as in RFC 9112 §6.

A client library would be a large part of the memory of the processes that ask: supervisor, controller and gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from llmlaunch.common.addresses import bracketed

HEAD_LIMIT = 64 << 10
"""Bytes of a head, of a chunk's size line, and of all trailers together."""
_READ_BYTES = 64 << 10
_INTERIM_MOST = 8
"""Interim responses (1xx) before the final one."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class HttpError(Exception):
    """There is no usable answer. Each subclass is also the built-in exception that fits it."""


class CannotConnect(HttpError, ConnectionError):
    """No connection was made. Of a name with several addresses, at none of them."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason) or type(reason).__name__)
        self.cause = reason
        self.refused = isinstance(reason, ConnectionRefusedError)
        self.reset = isinstance(reason, ConnectionResetError | BrokenPipeError | ConnectionAbortedError)
        self.reason = getattr(reason, "strerror", None) or str(reason)


class TlsFailed(CannotConnect):
    """Somebody listens there, and no TLS connection came about: the certificate is not trusted, or it is not TLS."""


class ConnectionBroke(HttpError, ConnectionResetError):
    """The connection ended before the answer did."""


class TimedOut(HttpError, TimeoutError):
    """The time for the connection, for a read or for the whole was over."""


class InvalidAnswer(HttpError, ValueError):
    """What came is not HTTP/1.x, or its framing is faulty."""


class TooLarge(InvalidAnswer):
    """The head or the body is beyond its limit."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, in the order in which they came."""
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON; None when it is something else."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Incoming:
    """An answer whose body is still on its way."""

    __slots__ = ("_chunk_open", "_chunked", "_done", "_left", "_source", "headers", "status", "until_close")

    def __init__(self, source: _Source, status: int, headers: tuple[tuple[str, str], ...]) -> None:
        self.status, self.headers = status, headers
        self._source = source
        self._chunked, length = _framing(status, headers)
        self.until_close = not self._chunked and length is None
        """Whether only the end of the connection ends the body, so that one that was cut looks whole."""
        self._left = length or 0
        """Bytes to come of the sized body, or of the present chunk."""
        self._chunk_open = False
        self._done = length == 0

    async def piece(self) -> bytes:
        """The next bytes of the body as they come, without its framing; empty at its end. Raises HttpError."""
        if self._chunked and not self._left and not self._done:
            await self._next_chunk()
        if self._done:
            return b""
        data = await self._source.some(_READ_BYTES if self.until_close else self._left)
        if self.until_close:
            self._done = not data
        elif not data:
            raise ConnectionBroke("the connection closed within an answer")
        else:
            self._left -= len(data)
            self._done = not self._left and not self._chunked
        return data

    async def read(self, limit: int, *, cut: bool = False) -> bytes:
        """The whole body, of at most ``limit`` bytes. A longer one raises TooLarge; with ``cut`` it ends there."""
        content, size = [], 0
        while (not cut or size < limit) and (piece := await self.piece()):
            content.append(piece)
            size += len(piece)
            # The announced size is enough to know.
            if size + self._left > limit and not cut:
                raise TooLarge(f"its answer is larger than {limit} bytes")
        return b"".join(content)[:limit]

    async def _next_chunk(self) -> None:
        source = self._source
        for expected in (b"\r", b"\n") if self._chunk_open else ():
            got = await source.some(1)
            if not got:
                raise ConnectionBroke("the connection closed within an answer")
            if got != expected:
                raise InvalidAnswer("a chunk is longer than its size")
        line = _CHUNK.fullmatch(await source.line(HEAD_LIMIT))
        if line is None:
            raise InvalidAnswer("a chunk has no size")
        self._left = int(line[1], 16)
        self._chunk_open = True
        if self._left:
            return
        left = HEAD_LIMIT
        while trailer := await source.line(left):
            left -= len(trailer) + 2
            if not _FIELD.fullmatch(trailer):
                raise InvalidAnswer("a trailer is malformed")
        self._done = True


async def ask(
    host: str,
    port: int,
    method: str,
    path: str,
    *,
    timeout_s: float,
    body_limit: int,
    head_limit: int = HEAD_LIMIT,
    cut: bool = False,
    content: bytes = b"",
    token: str = "",
    tls: ssl.SSLContext | None = None,
) -> Response:
    """The answer to one request, all of it within ``timeout_s`` seconds. Raises HttpError; the rest as in :func:`exchange`.

    A body beyond ``body_limit`` bytes raises TooLarge; with ``cut`` it ends there.
    """
    try:
        async with (
            asyncio.timeout(timeout_s),
            exchange(
                host, port, method, path, head_limit=head_limit, content=content, token=token, tls=tls
            ) as incoming,
        ):
            body = await incoming.read(body_limit, cut=cut)
    except TimeoutError:
        raise TimedOut(f"no answer within {timeout_s:g} s") from None
    return Response(incoming.status, incoming.headers, body)


@contextlib.asynccontextmanager
async def exchange(
    host: str,
    port: int,
    method: str,
    path: str,
    *,
    connect_s: float | None = None,
    read_s: float | None = None,
    head_limit: int = HEAD_LIMIT,
    content: bytes = b"",
    token: str = "",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Incoming]:
    """Send one request, and give its answer once the head is there; leaving closes the connection. Raises HttpError.

    ``connect_s`` bounds the connection, TLS included, ``read_s`` the silence before each piece of the answer, in
    seconds; None: no bound. ``content`` is JSON. ``token`` goes as a Bearer token (RFC 6750).
    """
    reader, writer = await _connect(host, port, connect_s, tls)
    try:
        # Not drained: a server may refuse a request before it has read all of it.
        writer.write(_request(host, port, method, path, content, token))
        source = _Source(reader, read_s)
        for _ in range(_INTERIM_MOST):
            status, headers = _parse(await source.until(b"\r\n\r\n", head_limit))
            if status >= 200:
                yield Incoming(source, status, headers)
                return
        raise InvalidAnswer("it sends nothing but interim answers")
    finally:
        await _leave(writer)


async def check_connection(
    host: str, port: int, *, timeout_s: float, tls: ssl.SSLContext | None = None
) -> None:
    """Connect within ``timeout_s`` seconds, and leave. Raises HttpError."""
    _, writer = await _connect(host, port, timeout_s, tls)
    await _leave(writer)


async def _connect(
    host: str, port: int, timeout_s: float | None, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.open_connection(host, port, ssl=tls)
    except TimeoutError:
        raise TimedOut("no connection in time") from None
    except ssl.SSLError as error:
        raise TlsFailed(error) from error
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be encoded
        raise CannotConnect(error) from error


async def _leave(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()  # close() would wait for what is not sent yet, and for the other side's end of TLS
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _request(host: str, port: int, method: str, path: str, content: bytes, token: str) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {bracketed(host)}:{port}",
        "Connection: close",
        "Accept: application/json",
    ]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def _parse(head: bytes) -> tuple[int, tuple[tuple[str, str], ...]]:
    start, *lines = head[:-4].split(b"\r\n")
    status = _STATUS.fullmatch(start)
    if status is None:
        raise InvalidAnswer("its answer is not HTTP")
    fields = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise InvalidAnswer("a header field is malformed")
        fields.append((field[1].decode().lower(), field[2].strip(b" \t").decode("latin-1")))
    return int(status[1]), tuple(fields)


def _framing(status: int, headers: tuple[tuple[str, str], ...]) -> tuple[bool, int | None]:
    """Whether the body is chunked, and else its length in bytes; None: the connection's end ends it."""
    codings = [value.lower() for name, value in headers if name == "transfer-encoding"]
    lengths = [value for name, value in headers if name == "content-length"]
    if codings and (codings != ["chunked"] or lengths):
        raise InvalidAnswer("its Transfer-Encoding is not known, or not alone")
    if not all(map(_is_length, lengths)) or len(set(map(int, lengths))) > 1:
        raise InvalidAnswer("its Content-Length is not a length")
    if status in (204, 304):
        return False, 0
    return bool(codings), int(lengths[0]) if lengths else None


def _is_length(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 18


class _Source:
    """The bytes of one answer, of which some may have been read already."""

    __slots__ = ("_at", "_data", "_read_s", "_reader")

    def __init__(self, reader: asyncio.StreamReader, read_s: float | None) -> None:
        self._reader, self._read_s = reader, read_s
        self._data, self._at = b"", 0

    async def line(self, limit: int) -> bytes:
        """Without its end."""
        return (await self.until(b"\r\n", limit))[:-2]

    async def until(self, end: bytes, limit: int) -> bytes:
        """All up to and with ``end``, of at most ``limit`` bytes."""
        while (found := self._data.find(end, self._at, self._at + limit)) < 0:
            if len(self._data) - self._at >= limit:
                raise TooLarge(f"its head or a line of its framing is longer than {limit} bytes")
            more = await self._read()
            if not more:
                raise ConnectionBroke("the connection closed before the answer was whole")
            self._data, self._at = self._data[self._at :] + more, 0
        start, self._at = self._at, found + len(end)
        return self._data[start : self._at]

    async def some(self, most: int) -> bytes:
        """What is there, of at most ``most`` bytes; waits while nothing is. Empty: the connection has ended."""
        if self._at == len(self._data):
            self._data, self._at = await self._read(), 0
        start, self._at = self._at, min(self._at + most, len(self._data))
        return self._data[start : self._at]

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout(self._read_s):
                return await self._reader.read(_READ_BYTES)
        except TimeoutError:
            raise TimedOut("no more of its answer in time") from None
        except OSError as error:
            raise ConnectionBroke(str(error) or type(error).__name__) from error
