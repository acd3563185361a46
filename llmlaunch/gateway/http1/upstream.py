"""Persistent connections to workers.

A connection carries one request at a time. It reports to its user (a :class:`ResponseReceiver`) and knows nothing of
clients. The bytes of a body are handed over as they came, unless the user asks for decoded content.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from llmlaunch.gateway.failures import FailureKind, InvalidResponse
from llmlaunch.gateway.http1.coalesce import Coalescer
from llmlaunch.gateway.http1.framing import HEAD_LIMIT, BodyFraming, ResponseHead, read_head
from llmlaunch.gateway.http1.head_cache import HeadCache

_WRITELINES_FROM = 16 << 10
"""Bytes of a body from which writelines() is cheaper than copying head and body together."""


_FastPath = tuple[Callable[[bytes], bool], Callable[[bytes], None], Callable[[bytes], None], Coalescer]


class ResponseReceiver(Protocol):
    """Receives the response to a request that it sent."""

    decoding: bool
    """True: bodies are handed over without chunk framing. Must not change after :meth:`answer_began`."""

    def answer_began(self, head: ResponseHead, body: BodyFraming) -> None:
        """The final head came (not an interim one). ``body`` follows the framing of the bytes after it."""
        ...

    def answer_bytes(self, data: bytes) -> None:
        """Bytes of the body came; without chunk framing if ``decoding``."""
        ...

    def answer_ended(self) -> None:
        """The response is complete; the connection is not the receiver's any more."""
        ...

    def answer_broke(self, why: str, kind: FailureKind, began: bool) -> None:
        """The response broke off and the connection is closed. ``began``: bytes of a response had come.

        ``kind``: RESET or INVALID; from a FastChat worker also REFUSED, TIMEOUT or EMPTY.
        """
        ...


class EmptyResponse(ConnectionResetError):
    """The worker is alive but sent an empty response."""


_CAUSES = (
    (EmptyResponse, FailureKind.EMPTY),
    (ConnectionRefusedError, FailureKind.REFUSED),
    (TimeoutError, FailureKind.TIMEOUT),
)
"""How a translation to FastChat's protocol failed, other than by a reset connection."""


class ConnectionOwner(Protocol):
    """What the connections to all replicas share, and what takes a connection back."""

    heads: HeadCache[ResponseHead]
    events: Coalescer

    def give(self, connection: UpstreamConnection) -> None:
        """``connection`` is idle and may be used again."""
        ...

    def forget(self, connection: UpstreamConnection) -> None:
        """``connection`` is closed."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to one replica. ``key`` names the replica; ``lines`` are the header lines of every request on it."""

    __slots__ = (
        "_body",
        "_fast_path",
        "_keep",
        "_partial_head",
        "_paused",
        "_transport",
        "closed",
        "idle_since",
        "key",
        "lines",
        "owner",
        "used",
        "user",
    )  # fmt: skip

    def __init__(self, owner: ConnectionOwner, key: str, lines: bytes) -> None:
        self.owner = owner
        self.key = key
        self.lines = lines
        self.user: ResponseReceiver | None = None
        self.used = False
        self.closed = False
        self.idle_since = 0.0
        self._body: BodyFraming | None = None
        self._keep = False
        self._partial_head = b""
        """The beginning of an incomplete head."""
        self._fast_path: _FastPath | None = None
        self._paused = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket's options."""
        self._transport = cast(asyncio.Transport, transport)
        _prepare(transport.get_extra_info("socket"))

    def send(
        self, user: ResponseReceiver, head: bytes, body: bytes, parts: Sequence[bytes | memoryview] = ()
    ) -> None:
        """Write a request whose response goes to ``user``. ``head`` ends with the empty line.

        ``parts``: a body in parts, instead of ``body``.
        """
        self.user = user
        if parts:
            self._transport.writelines((head, *parts))
        elif len(body) < _WRITELINES_FROM:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def pass_chunks(self, note: Callable[[bytes], None], write: Callable[[bytes], None]) -> None:
        """For the rest of the response, pass whole chunks to ``note`` and ``write`` instead of the user.

        Nearly all events of a stream are such chunks. This way one costs little more than its two system calls.
        """
        if self._body is not None:
            events = self.owner.events
            self._fast_path = (self._body.is_next_chunk, note, write, events)
            events.look()

    def fileno(self) -> int:
        """The file descriptor of the socket; -1 when there is none."""
        sock = self._transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def drop(self) -> None:
        """Close at once, without another call to the user."""
        self.user = self._fast_path = None
        self.closed = True
        self._transport.abort()

    def pause(self) -> None:
        """Stop reading, so that the replica stops sending."""
        if not self._paused and not self.closed:
            self._paused = True
            self._transport.pause_reading()

    @property
    def paused(self) -> bool:
        """Whether reading is paused."""
        return self._paused

    def resume(self) -> None:
        """Read again."""
        if self._paused and not self.closed:
            self._paused = False
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Pass the response's bytes to the user. Bytes without a request close the connection."""
        if self._fast_path is not None:
            is_next_chunk, note, write, events = self._fast_path
            if is_next_chunk(data):
                note(data)
                write(data)
                events.passed += 1
                return
        user = self.user
        if user is None:  # a response without a request
            self.drop()
            return
        try:
            body = self._body
            if body is None:
                data = self._head(user, data)
                body = self._body
                if body is None or self.user is not user:
                    return
            if data:
                if user.decoding:
                    data = body.decode(data)
                else:
                    body.feed(data)
                user.answer_bytes(data)
        except InvalidResponse as error:
            began = self._body is not None
            self.drop()
            user.answer_broke(str(error), FailureKind.INVALID, began)
            return
        if body.done and self.user is user:
            self._finish(user)

    def _head(self, user: ResponseReceiver, data: bytes) -> bytes:
        """Take heads from ``data`` and return the bytes after them; ``_body`` is set once the final head is complete."""
        data = self._partial_head + data if self._partial_head else data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > HEAD_LIMIT:
                    raise InvalidResponse(f"its head is larger than {HEAD_LIMIT} bytes")
                self._partial_head = data
                return b""
            head = read_head(data, end, self.owner.heads)
            data = data[end + 4 :]
            if head.status >= 200:
                break
            if head.status == 101:
                raise InvalidResponse("it switched protocols")
        self._partial_head = b""
        self._keep = head.keep_alive
        self._body = BodyFraming(head)
        user.answer_began(head, self._body)
        return data

    def _finish(self, user: ResponseReceiver) -> None:
        self.user = self._fast_path = None
        keep = self._keep and not self.closed
        self._body = None
        self.used = True
        if keep:
            self.resume()
            self.owner.give(self)
        else:
            self.closed = True
            self._transport.close()
        user.answer_ended()

    def eof_received(self) -> None:
        """The replica sends no more: asyncio closes the connection, because this returns None."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the user that its response ended, if it ends with the connection, or else that it broke off."""
        self.closed = True
        self.owner.forget(self)
        user, self.user = self.user, None
        if user is None:
            return
        if exc is None and self._body is not None and self._body.until_close:
            user.answer_ended()
        else:
            began = self._body is not None or bool(self._partial_head)
            kind = next((name for cause, name in _CAUSES if isinstance(exc, cause)), FailureKind.RESET)
            user.answer_broke(f"its connection closed{f' ({exc})' if exc else ''}", kind, began)


def _prepare(sock: socket.socket | None) -> None:
    """Disable Nagle's algorithm, and enable keepalive so that a machine that vanished is noticed within 30 seconds."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
