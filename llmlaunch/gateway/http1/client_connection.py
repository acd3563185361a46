"""One client's connection: its requests in order, its timeouts, and how it closes.

``request_parser`` turns bytes into requests. Here they are answered one after the other: at once, or by a
:class:`Responder`. Reading stops when a client pipelines too many requests. When a client does not read its response, the
gateway stops reading from the replica.

**End of input.** A client that closed its connection and one that only closed its sending side look the same on the
wire. Cancelling at once would break the second kind; waiting would let a GPU work for the first. So, before the response
begins, the gateway sends an interim ``100 Continue``, which every HTTP/1.1 client must skip (RFC 9110 §15.2), and looks
at the connection: a peer that closed answers with a reset. Once the response has begun, end of input means that the
client left.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Protocol, cast

from llmlaunch.common.addresses import is_loopback
from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.http1.open_files import OpenFiles
from llmlaunch.gateway.http1.request_parser import PIPELINE_LIMIT, ParserRules, RequestParser
from llmlaunch.gateway.request import ClientRequest

HEAD_TIMEOUT_S = 20.0
"""Seconds from the first byte of a head to its last, even if bytes keep coming."""
BODY_TIMEOUT_S = 30.0
"""Seconds without a byte of a body."""
IDLE_TIMEOUT_S = 75.0
SHORT_HEAD_TIMEOUT_S, SHORT_BODY_TIMEOUT_S = 1.0, 5.0
"""The same two timeouts, in seconds, when the process runs out of file descriptors."""
STALLED_TIMEOUT_S = 120.0
"""Seconds for which a client may read nothing of a response, or leave its last bytes unread before a close."""
PIPELINE_BYTES = 256 << 10
"""Bytes in the bodies of pipelined requests at which reading stops. It also stops at PIPELINE_LIMIT requests."""
LINGER_S = 2.0
"""Seconds to read on after the last response: closing with unread bytes would reset the connection, and the client could
lose the response (RFC 9112 §9.6)."""
WRITE_HIGH = 256 << 10
_PROBES_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5)
_PROBE_AGAIN_S = 2.0
_TCP_CLOSED = 7
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_RESET = struct.pack("ii", 1, 0)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Responder(Protocol):
    """Answers a request that cannot be answered at once. It is not called again after ``finished`` or ``abort``."""

    @property
    def started(self) -> bool:
        """Whether bytes of the response were sent to the client."""
        ...

    def start(self) -> None:
        """Begin to work on the request. Called once, before the other methods."""
        ...

    def cancel(self) -> None:
        """The client left."""
        ...

    def shut_down(self) -> None:
        """The grace period is over: end now, in a way that the client notices."""
        ...

    def pause(self) -> None:
        """The client reads too slowly: write nothing more for now."""
        ...

    def resume(self) -> None:
        """The client has caught up: writing may go on."""
        ...


class Application(Protocol):
    """What a connection needs from the gateway behind it."""

    connections: set[ClientConnection]
    waiting_for_routes: set[ClientConnection] | None
    """Connections whose next request waits for the first route table, until :meth:`ClientConnection.answer_ready` is called
    again; None: nothing waits for it any more."""
    files: OpenFiles
    rules: ParserRules
    surplus_rules: ParserRules
    """For connections beyond the limit of open files."""
    stopping: bool

    def waits_for_routes(self, request: ClientRequest) -> bool:
        """Whether ``request`` has to wait for the first route table. Only asked while ``waiting_for_routes`` is not None."""
        ...

    def respond(self, client: ClientConnection, request: ClientRequest) -> Responder | None:
        """Answer ``request`` through :meth:`ClientConnection.reply`, or return a responder that will once it is started."""
        ...

    def date(self) -> bytes:
        """The value of ``Date``."""
        ...

    def cors_fields(self, origin: bytes) -> bytes:
        """Header lines that let a page from ``origin`` read the response."""
        ...


class ClientConnection(asyncio.Protocol):
    """The server side of one client's connection; the module's docstring describes it."""

    __slots__ = (
        "_answering",
        "_app",
        "_current",
        "_half_closed",
        "_idle_since",
        "_lingering",
        "_now",
        "_parser",
        "_paused_reading",
        "_probe",
        "_secure",
        "_serving",
        "_stalled_since",
        "peer",
        "transport",
    )  # fmt: skip

    def __init__(self, app: Application) -> None:
        self._app = app
        self._now = time.monotonic
        self._parser: RequestParser
        self._current: ClientRequest | None = None
        """The request that is being answered."""
        self._serving: Responder | None = None
        """What answers it, unless it was answered at once."""
        self._lingering = False
        self._half_closed = False
        self._secure = False
        self._answering = False
        self._paused_reading = False
        self._stalled_since = 0.0
        self._idle_since = 0.0
        self._probe: asyncio.TimerHandle | None = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set up the transport and the parser, by ``surplus_rules`` if no file descriptor can be freed for it."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        # asyncio does not support half-closed TLS connections: end of input means that the client left.
        self._secure = transport.get_extra_info("sslcontext") is not None
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in _INTERNET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]).removeprefix("::ffff:") if peer else ""
        """The client's IP address, or that of the proxy in front of it."""
        app = self._app
        files = app.files
        number = -1 if sock is None else sock.fileno()
        surplus = number >= files.evict_from and not files.make_room(number)
        self._parser = RequestParser(app.surplus_rules if surplus else app.rules, is_loopback(self.peer))
        self._idle_since = self._now()
        app.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse ``data`` and answer the requests that it completes."""
        self._parser.feed(data)
        self.answer_ready()

    def eof_received(self) -> bool:
        """The client sends no more. Returns True to keep the connection open for the response."""
        self._half_closed = True
        if self._app.waiting_for_routes is not None and self in self._app.waiting_for_routes:
            return not self._secure
        serving, current = self._serving, self._current
        if serving is None or current is None or self._parser.mid_request or self._secure:
            return False
        if serving.started or not current.http11 or not hasattr(socket, "TCP_INFO"):
            return False
        self._look_for_peer(0)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the current request and drop those that wait behind it."""
        self._parser.end()
        self._app.connections.discard(self)
        if self._probe is not None:
            self._probe.cancel()
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.cancel()

    def pause_writing(self) -> None:
        """The write buffer is full: pause the responder until the client has read."""
        self._stalled_since = self._now()
        if self._serving is not None:
            self._serving.pause()

    def resume_writing(self) -> None:
        """The client has read: resume the current response and answer further requests."""
        self._stalled_since = 0.0
        if self._serving is not None:
            self._serving.resume()
        self.answer_ready()

    def answer_ready(self) -> None:
        """Answer the requests that can be answered now, in order."""
        if self._answering:
            return
        self._answering = True
        app, parser = self._app, self._parser
        ahead = parser.ready
        while not (self._serving or self._stalled_since or self.transport.is_closing()):
            if not ahead:
                if parser.unread:
                    parser.parse_unread()
                if not ahead:
                    break
            if app.waiting_for_routes is not None and app.waits_for_routes(ahead[0]):
                app.waiting_for_routes.add(self)
                break
            self._current = request = ahead.popleft()
            self._serving = serving = app.respond(self, request)
            if serving is not None:
                serving.start()
                if self._half_closed and self._serving is not None:
                    self._look_for_peer(0)
        self._answering = False
        if ahead or parser.unread or parser.expecting or self._paused_reading:
            self._pace()

    def _pace(self) -> None:
        """Send ``100 Continue`` to a client that waits for it, and pause or resume reading."""
        parser = self._parser
        ahead = parser.ready
        if parser.expecting and not (ahead or self._serving):
            parser.expecting = False
            self.write(_CONTINUE)
        full = bool(ahead) and (
            len(ahead) >= PIPELINE_LIMIT or sum(len(r.body) for r in ahead) > PIPELINE_BYTES
        )
        full = full or bool(parser.unread)
        if full != self._paused_reading and not self.transport.is_closing() and not self._half_closed:
            self._paused_reading = full
            if full:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    @property
    def serving(self) -> Responder | None:
        """The responder of the current request; None when no request is being answered."""
        return self._serving

    # -- writing

    def write(self, data: bytes) -> None:
        """Send ``data``, unless the connection is closing."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def reply(self, request: ClientRequest, reply: Reply) -> None:
        """Write a complete response of the gateway's own, and go on with the next request."""
        keep = request.keep_alive and request.http11 and not self._app.stopping
        dialect = request.endpoint.dialect
        if dialect is not None and reply.status >= 400:
            reply = dialect.error(reply, request.identity)
        head = b"%bdate: %b\r\nx-request-id: %b\r\n%b%b%b" % (
            reply.start,
            self._app.date(),
            request.identity,
            reply.fields,
            self._app.cors_fields(request.origin),
            b"" if keep else b"connection: close\r\n",
        )
        if reply.status != 204:
            head += b"content-type: %b\r\ncontent-length: %d\r\n" % (reply.content_type, len(reply.body))
        self.write(head + b"\r\n" + (b"" if request.method == b"HEAD" else reply.body))
        self.finished(keep)

    def begin_stream(self, request: ClientRequest) -> None:
        """Write the head of a stream of events, before anything is known of its content."""
        keep = request.keep_alive and not self._app.stopping
        head = b"HTTP/1.1 200 OK\r\ndate: %b\r\nx-request-id: %b\r\n%bcontent-type: text/event-stream\r\ncache-control: no-cache\r\n" % (
            self._app.date(), request.identity, self._app.cors_fields(request.origin),
        )  # fmt: skip
        head += b"transfer-encoding: chunked\r\n" if request.http11 else b""
        self.write(head + (b"" if keep else b"connection: close\r\n") + b"\r\n")

    def finished(self, keep: bool) -> None:
        """The response is complete. ``keep``: the connection may carry another request."""
        self._serving = self._current = None
        self._idle_since = self._now()
        if not keep or self._app.stopping:
            self._end()
        elif self._half_closed and not self._parser.ready:
            self.transport.close()
        else:
            self.answer_ready()

    def abort(self, reset: bool) -> None:
        """Close in the middle of a response, in a way that the client notices.

        ``reset``: reset the connection, because the response's framing does not show that something is missing.
        """
        self._serving = self._current = None
        self._idle_since = self._now()
        self._parser.input_closed = True
        if reset:
            sock = self.transport.get_extra_info("socket")
            if sock is not None and sock.family in _INTERNET:
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET
                )  # abort() alone ends like a last byte
            self.transport.abort()
        else:
            self.transport.close()

    def _end(self) -> None:
        parser = self._parser
        unread = parser.input_closed
        parser.end()
        if not unread or self._half_closed or not self.transport.can_write_eof():
            self.transport.close()
        elif not self.transport.is_closing():
            self._lingering = True
            self.transport.write_eof()

    # -- time

    def sweep(self, now: float) -> None:
        """Enforce the timeouts. Called about once a second with the monotonic time in seconds."""
        parser = self._parser
        if self._stalled_since:
            if now - self._stalled_since > STALLED_TIMEOUT_S:
                self.transport.abort()
        elif self._lingering or self.transport.is_closing():
            # A client that does not read what is still to be written could keep the connection open for ever.
            limit = STALLED_TIMEOUT_S if self.transport.get_write_buffer_size() else LINGER_S
            if now - self._idle_since > limit:
                self.transport.abort()
        elif parser.mid_request:
            limit = HEAD_TIMEOUT_S if parser.in_head else BODY_TIMEOUT_S
            if now - parser.since > limit and not self._paused_reading:
                parser.refuse_rest(errors.request_timeout())
                self.answer_ready()
        elif self._serving is None and now - self._idle_since > IDLE_TIMEOUT_S:
            self.transport.close()

    def idle_since(self, now: float) -> float:
        """Since when the connection is idle, in seconds on the clock of ``now``; 0.0: it is in use.

        A connection whose client sends the rest of a request too slowly counts as idle.
        """
        parser = self._parser
        if self._serving is not None or parser.ready or parser.unread or self.transport.is_closing():
            return 0.0
        if not parser.mid_request:
            return self._idle_since
        timeout = SHORT_HEAD_TIMEOUT_S if parser.in_head else SHORT_BODY_TIMEOUT_S
        return parser.since if now - parser.since > timeout else 0.0

    def stop(self) -> None:
        """The gateway stops: an idle connection closes now, a busy one after its current response."""
        if self._serving is None and not self._parser.mid_request:
            self.transport.close()

    def shut_down(self) -> None:
        """The grace period is over: end the current response and close."""
        if self._serving is not None:
            self._serving.shut_down()
        if not self.transport.is_closing():
            self.transport.close()

    def _look_for_peer(self, step: int) -> None:
        """Find out whether the client left; see "End of input" above."""
        self._probe = None
        serving = self._serving
        if serving is None or serving.started or self.transport.is_closing():
            return
        again = step >= len(_PROBES_S)
        if step and _is_closed(self.transport.get_extra_info("socket")):
            self.transport.abort()
            return
        if step == 0 or again:
            self.write(_CONTINUE)
        delay = _PROBE_AGAIN_S if again else _PROBES_S[step]
        self._probe = asyncio.get_running_loop().call_later(delay, self._look_for_peer, step + 1)


def _is_closed(sock: socket.socket) -> bool:
    """Whether the peer reset the connection (Linux: the first byte of ``struct tcp_info``)."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSED
    except OSError:
        return True
