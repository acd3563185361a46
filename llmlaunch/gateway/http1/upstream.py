"""Connections to workers: kept open, used again, watched for where an answer ends.

A connection carries one request a time. It tells its user (an :class:`ResponseReceiver`) what happens and knows nothing of
clients; the bytes of a body go to the user as they came, unless the user asks for decoded content.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Protocol, cast

from llmlaunch.gateway.failures import FailureKind
from llmlaunch.gateway.http1.coalesce import Coalescer
from llmlaunch.gateway.http1.framing import HEAD_LIMIT, BodyFraming, InvalidResponse, ResponseHead, read_head
from llmlaunch.gateway.http1.head_cache import HeadCache

_WORTH_NO_COPY = 16 << 10
"""Bytes of a body from which a gathering write is cheaper than a copy."""


_Lane = tuple[Callable[[bytes], bool], Callable[[bytes], None], Callable[[bytes], None], Coalescer]


class ResponseReceiver(Protocol):
    """Who sent a request and takes its answer."""

    decoding: bool
    """True: content without chunk framing. Settled at the latest in :meth:`answer_began`."""

    def answer_began(self, head: ResponseHead, body: BodyFraming) -> None:
        """The final head came; ``body`` follows what comes behind it."""
        ...

    def answer_bytes(self, data: bytes) -> None:
        """Bytes of the body: as they came, or without chunk framing if ``decoding``."""
        ...

    def answer_ended(self) -> None:
        """The whole answer came; the connection is not the taker's any more."""
        ...

    def answer_broke(self, why: str, kind: FailureKind, began: bool) -> None:
        """The connection is gone. ``began``: bytes of an answer had come. ``kind``: RESET or INVALID; of a
        translation also REFUSED, TIMEOUT or EMPTY."""
        ...


class EmptyResponse(ConnectionResetError):
    """Nothing was answered, by somebody who is alive."""


_CAUSES = (
    (EmptyResponse, FailureKind.EMPTY),
    (ConnectionRefusedError, FailureKind.REFUSED),
    (TimeoutError, FailureKind.TIMEOUT),
)
"""Why a translation lost its worker, when it did not just break."""


class ConnectionOwner(Protocol):
    """What the connections to all replicas share, and where one goes when it may be used again."""

    heads: HeadCache[ResponseHead]
    events: Coalescer

    def give(self, connection: UpstreamConnection) -> None:
        """It is idle."""
        ...

    def forget(self, connection: UpstreamConnection) -> None:
        """It is closed."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """One connection to one replica. ``key`` names the replica; ``lines`` stand in the head of every request."""

    __slots__ = (
        "_body",
        "_held",
        "_keep",
        "_lane",
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
        self._held = b""
        """The beginning of a head."""
        self._lane: _Lane | None = None
        self._paused = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket's options."""
        self._transport = cast(asyncio.Transport, transport)
        _prepare(transport.get_extra_info("socket"))

    def send(self, user: ResponseReceiver, head: bytes, body: bytes) -> None:
        """Write a request whose answer goes to ``user``. ``head`` ends with the empty line."""
        self.user = user
        if len(body) < _WORTH_NO_COPY:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def pass_chunks(self, note: Callable[[bytes], None], write: Callable[[bytes], None]) -> None:
        """From here to the end of the answer, hand whole chunks to ``note`` and ``write`` instead of the user.

        The events of a stream are nearly all such chunks: on this lane one costs little more than its two system calls.
        """
        if self._body is not None:
            events = self.owner.events
            self._lane = (self._body.is_next_chunk, note, write, events)
            events.look()

    def fileno(self) -> int:
        """-1 when it has no file of its own."""
        sock = self._transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def drop(self) -> None:
        """Close at once: the answer is not wanted any more. The user hears nothing more."""
        self.user = self._lane = None
        self.closed = True
        self._transport.abort()

    def pause(self) -> None:
        """Stop reading, so that the replica stops sending."""
        if not self._paused and not self.closed:
            self._paused = True
            self._transport.pause_reading()

    @property
    def paused(self) -> bool:
        """Nothing is read, for the user takes nothing."""
        return self._paused

    def resume(self) -> None:
        """Read again."""
        if self._paused and not self.closed:
            self._paused = False
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Hand the answer's bytes to the user. Bytes that nobody asked for close the connection."""
        if self._lane is not None:
            is_next_chunk, note, write, events = self._lane
            if is_next_chunk(data):
                note(data)
                write(data)
                events.passed += 1
                return
        user = self.user
        if user is None:  # it spoke without being asked
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
        """Take heads off ``data`` and return what follows; ``_body`` is set once the final head is complete."""
        data = self._held + data if self._held else data
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > HEAD_LIMIT:
                    raise InvalidResponse(f"its head is larger than {HEAD_LIMIT} bytes")
                self._held = data
                return b""
            head = read_head(data, end, self.owner.heads)
            data = data[end + 4 :]
            if head.status >= 200:
                break
            if head.status == 101:
                raise InvalidResponse("it switched protocols")
        self._held = b""
        self._keep = head.keep_alive
        self._body = BodyFraming(head)
        user.answer_began(head, self._body)
        return data

    def _finish(self, user: ResponseReceiver) -> None:
        self.user = self._lane = None
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
        """The replica will send no more: asyncio closes the connection, for this returns nothing."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the user that its answer ended, if closing is how it ends, or else that it broke off."""
        self.closed = True
        self.owner.forget(self)
        user, self.user = self.user, None
        if user is None:
            return
        if exc is None and self._body is not None and self._body.until_close:
            user.answer_ended()
        else:
            began = self._body is not None or bool(self._held)
            kind = next((name for cause, name in _CAUSES if isinstance(exc, cause)), FailureKind.RESET)
            user.answer_broke(f"its connection closed{f' ({exc})' if exc else ''}", kind, began)


def _prepare(sock: socket.socket | None) -> None:
    """No delayed segments, and a machine that vanished without a word is noticed within half a minute."""
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
