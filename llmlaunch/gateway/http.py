"""HTTP/1.1 with clients: one connection, its requests in order, its end.

llhttp (through httptools) parses in its strict mode: a Content-Length that is doubled, odd or beside a
Transfer-Encoding, folded fields, NULs, bare line feeds and broken chunks are errors there. What it leaves to us is
checked here: one Host, no transfer coding but chunked, sizes, and time.

A body is taken in whole before the request goes on, so that it can be sent again to another replica. Reading stops
when a client sends many requests ahead. Writing stops the replica when a client does not read.

**The end of input.** A client that closed and one that only will send no more look the same on the wire. Cancelling
at once would break the second kind; waiting would let a GPU work for the first. So, before the answer begins, the
gateway sends an interim ``100 Continue``, which any HTTP/1.1 client must skip (RFC 9110 §15.2), and looks at the
connection: a peer that closed answers with a reset. Once the answer has begun, the end of input means that it left.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.headers import named_by_connection, request_id
from llmlaunch.gateway.proxy import Exchange
from llmlaunch.gateway.request import Fields, Request

if TYPE_CHECKING:
    from llmlaunch.gateway.app import Gateway

log = logging.getLogger(__name__)

HEAD_LIMIT = 32 << 10
"""Bytes of a request's head."""
FIELDS_LIMIT = 128
HEAD_TIMEOUT_S = 20.0
"""Seconds from the first byte of a head to its end, however slowly it drips."""
BODY_TIMEOUT_S = 30.0
"""Seconds without a byte of a body."""
IDLE_TIMEOUT_S = 75.0
STALLED_TIMEOUT_S = 120.0
"""Seconds in which a client takes nothing of what waits for it."""
AHEAD_LIMIT = 16
"""Requests sent ahead of their turn before reading stops; so do the bytes of their bodies beyond AHEAD_BYTES."""
AHEAD_BYTES = 256 << 10
SWALLOW_LIMIT = 64 << 10
"""A body that is not wanted is read up to here to keep the connection; beyond, it is closed."""
LINGER_S = 2.0
"""Seconds to read on after a last answer: closing on unread bytes would reset it away (RFC 9112 §9.6)."""
WRITE_HIGH = 256 << 10
_PROBES_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5)
_PROBE_AGAIN_S = 2.0
_TCP_CLOSED = 7
_NOTED = frozenset(
    (b"host", b"authorization", b"connection", b"content-length", b"expect", b"origin", b"transfer-encoding", b"x-request-id")
)  # fmt: skip
_ONCE = frozenset((b"host", b"authorization", b"content-length"))
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection(asyncio.Protocol):
    """See the module."""

    __slots__ = (
        "_ahead", "_current", "_deaf", "_declared", "_doubled", "_fields", "_gateway", "_half_closed", "_head_fed",
        "_head_size", "_in_head", "_lingering", "_local", "_loop", "_noted", "_now", "_parser", "_parts", "_paused_reading",
        "_probe", "_request", "_serving", "_since", "_size", "_stalled_since", "_turning", "_url", "transport",
    )  # fmt: skip

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._loop = gateway.loop
        self._now = time.monotonic
        self._parser = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        """Its head is read, its body is not."""
        self._current: Request | None = None
        """Being answered."""
        self._serving: Exchange | None = None
        """By whom, when a replica is needed for it."""
        self._ahead: deque[Request] = deque()
        self._in_head = False
        self._head_size = 0
        """Bytes of the parts of a head that are complete."""
        self._head_fed = 0
        """Bytes of what was read since a head began: llhttp keeps an unfinished field to itself."""
        self._deaf = False
        """What still comes is not read any more."""
        self._lingering = False
        self._half_closed = False
        self._turning = False
        self._paused_reading = False
        self._stalled_since = 0.0
        self._probe: asyncio.TimerHandle | None = None
        self._since = 0.0
        """When the present wait began: for a request, for the rest of a head, for more of a body."""

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername")
        self._local = bool(peer) and _is_loopback(str(peer[0]))
        self._since = self._now()
        self._gateway.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._in_head:
            self._head_fed += len(data)
        elif self._request is None:
            self._since = self._now()
            self._head_fed = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No upgrade is offered: the request is answered as it stands, then the connection ends.
            if self._ahead:
                self._ahead[-1].keep_alive = False
            self._deaf = True
        except httptools.HttpParserError as error:
            self._parse_error(error)
        if self._in_head and self._head_fed + self._head_size > HEAD_LIMIT and not self._deaf:
            self._refuse_rest(errors.header_too_large(HEAD_LIMIT))
        self._turn()

    def eof_received(self) -> bool:
        """True keeps the connection for what is still to be written."""
        self._half_closed = True
        serving, current = self._serving, self._current
        if serving is None or current is None or self._request is not None or self._in_head:
            return False
        if serving.started or not current.http11 or not hasattr(socket, "TCP_INFO"):
            return False
        self._look_for_peer(0)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._deaf = True
        self._gateway.connections.discard(self)
        if self._probe is not None:
            self._probe.cancel()
        self._ahead.clear()
        self._request = None
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.cancel()

    def pause_writing(self) -> None:
        self._stalled_since = self._now()
        if self._serving is not None:
            self._serving.pause()

    def resume_writing(self) -> None:
        self._stalled_since = 0.0
        if self._serving is not None:
            self._serving.resume()

    # -- httptools

    def on_message_begin(self) -> None:
        self._url = b""
        self._fields: Fields = []
        self._noted: dict[bytes, bytes] = {}
        self._doubled = b""
        self._head_size = 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # a trailer: nothing here needs one
            return
        name = name.lower()
        self._head_size += len(name) + len(value) + 4
        self._fields.append((name, value.rstrip(b" \t")))
        if name in _NOTED:
            if name in self._noted:
                if name in _ONCE:
                    self._doubled = name
                value = self._noted[name] + b"," + value
            self._noted[name] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._deaf:
            return
        parser, noted = self._parser, self._noted
        connection = noted.get(b"connection")
        path, _, query = self._url.partition(b"?")
        gateway = self._gateway
        request = self._request = Request(
            parser.get_method(),
            path,
            query,
            parser.get_http_version() == "1.1",
            parser.should_keep_alive(),
            self._now(),
            request_id(noted.get(b"x-request-id", b""), b"") or gateway.new_identity(),
            self._fields,
        )
        request.local = self._local
        request.authorization = noted.get(b"authorization", b"")
        request.origin = noted.get(b"origin", b"")
        if connection is not None:
            request.named_by_connection = named_by_connection(connection)
        self._parts: list[bytes] = []
        self._size = 0
        # The parser let only digits through.
        self._declared = int(noted.get(b"content-length", b"0"))
        request.reply = self._fault(request) or gateway.screen(request)
        if request.reply is None and self._declared > gateway.max_body_bytes:
            request.reply = errors.body_too_large(gateway.max_body_bytes)
        self._before_body(request)

    def on_body(self, data: bytes) -> None:
        request = self._request
        if request is None or self._deaf:
            return
        self._size += len(data)
        if request.reply is not None:
            if self._size > SWALLOW_LIMIT:
                self._last_word(request)
        elif self._size > self._gateway.max_body_bytes:
            request.reply = errors.body_too_large(self._gateway.max_body_bytes)
            self._parts.clear()
            self._last_word(request)
        else:
            self._parts.append(data)
            self._since = self._now()

    def on_message_complete(self) -> None:
        request, self._request = self._request, None
        if request is None or self._deaf:
            return
        parts = self._parts
        request.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._enqueue(request)

    # -- reading

    def _fault(self, request: Request) -> Reply | None:
        """What llhttp leaves to its user."""
        if self._head_size > HEAD_LIMIT or len(self._fields) > FIELDS_LIMIT:
            request.keep_alive = False
            return errors.header_too_large(HEAD_LIMIT)
        if self._doubled:
            request.keep_alive = False
            return errors.bad_http(f"{self._doubled.decode()} is given twice")
        if request.http11 and b"host" not in self._noted:
            request.keep_alive = False
            return errors.bad_http("an HTTP/1.1 request needs a Host")
        coding = self._noted.get(b"transfer-encoding")
        if coding is None:
            return None
        if not request.http11:
            request.keep_alive = False
            return errors.bad_http("HTTP/1.0 has no Transfer-Encoding")
        if coding.strip(b" \t").lower() != b"chunked":
            request.keep_alive = False
            return errors.transfer_coding()
        return None

    def _before_body(self, request: Request) -> None:
        expects = self._noted.get(b"expect", b"").lower() == b"100-continue" and request.http11
        if request.reply is None:
            if expects and self._serving is None and not self._ahead:
                self.write(_CONTINUE)
        elif expects or self._declared > SWALLOW_LIMIT or not request.keep_alive:
            self._last_word(request)

    def _last_word(self, request: Request) -> None:
        """Answer ``request`` in its turn, and read nothing more."""
        request.keep_alive = False
        self._request = None
        self._deaf = True
        self._enqueue(request)

    def _refuse_rest(self, reply: Reply) -> None:
        request = self._request or Request(
            b"GET", b"", b"", True, False, self._now(), self._gateway.new_identity()
        )
        request.reply = reply
        self._in_head = False
        self._last_word(request)

    def _parse_error(self, error: Exception) -> None:
        if self._deaf:
            return
        last = self._ahead[-1] if self._ahead else self._current
        if last is not None and not last.keep_alive and not self._in_head and self._request is None:
            self._deaf = True  # bytes behind a request that was said to be the last
            return
        cause = error.__context__
        if isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
            log.error("a parser callback failed", exc_info=cause)
        self._refuse_rest(errors.bad_http(str(error) or "it can not be parsed"))

    def _enqueue(self, request: Request) -> None:
        self._ahead.append(request)

    def _turn(self) -> None:
        """Answer what can be answered now, in order."""
        if self._turning:
            return
        self._turning = True
        ahead = self._ahead
        while ahead and self._serving is None and not self.transport.is_closing():
            self._current = request = ahead.popleft()
            answer = request.reply or self._gateway.answer(request)
            if isinstance(answer, Reply):
                self._gateway.ended(request, "", answer.status)
                self.reply(request, answer)
            else:
                self._serving = exchange = Exchange(self._gateway, self, request, answer)
                exchange.start()
                if self._half_closed and self._serving is not None:
                    self._look_for_peer(0)
        self._turning = False
        full = bool(ahead) and (len(ahead) >= AHEAD_LIMIT or sum(len(r.body) for r in ahead) > AHEAD_BYTES)
        if full != self._paused_reading and not self.transport.is_closing() and not self._half_closed:
            self._paused_reading = full
            if full:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # -- writing

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def reply(self, request: Request, reply: Reply) -> None:
        """The gateway's own answer, whole."""
        keep = request.keep_alive and request.http11 and not self._gateway.stopping
        head = b"%bdate: %b\r\nx-request-id: %b\r\n%b%b%b" % (
            reply.start,
            self._gateway.date(),
            request.identity,
            reply.fields,
            self._gateway.cors_fields(request.origin),
            b"" if keep else b"connection: close\r\n",
        )
        if reply.status != 204:
            head += b"content-type: %b\r\ncontent-length: %d\r\n" % (reply.content_type, len(reply.body))
        self.write(head + b"\r\n" + (b"" if request.method == b"HEAD" else reply.body))
        self.finished(keep)

    def finished(self, keep: bool) -> None:
        """The answer is written."""
        self._serving = self._current = None
        self._since = self._now()
        if not keep or self._gateway.stopping:
            self._end()
        elif self._half_closed and not self._ahead:
            self.transport.close()
        else:
            self._turn()

    def cut(self, hard: bool) -> None:
        """End in the middle of an answer, so that the client can tell. ``hard``: its framing does not say so itself."""
        self._serving = self._current = None
        self._deaf = True
        if hard:
            self.transport.abort()
        else:
            self.transport.close()

    def _end(self) -> None:
        self._ahead.clear()
        unread, self._deaf = self._deaf, True
        if not unread or self._half_closed or not self.transport.can_write_eof():
            self.transport.close()
        elif not self.transport.is_closing():
            self._lingering = True
            self.transport.write_eof()

    # -- time

    def sweep(self, now: float) -> None:
        """Called about once a second."""
        waited = now - self._since
        if self._stalled_since:
            if now - self._stalled_since > STALLED_TIMEOUT_S:
                self.transport.abort()
        elif self._lingering:
            if waited > LINGER_S:
                self.transport.abort()
        elif self._in_head or self._request is not None:
            if waited > (HEAD_TIMEOUT_S if self._in_head else BODY_TIMEOUT_S) and not self._deaf:
                self._refuse_rest(errors.request_timeout())
                self._turn()
        elif self._serving is None and waited > IDLE_TIMEOUT_S:
            self.transport.close()

    def stop(self) -> None:
        """The gateway stops: an idle connection ends now, a busy one with its present answer."""
        if self._serving is None and self._request is None and not self._in_head:
            self.transport.close()

    def shut_down(self) -> None:
        """The grace is over."""
        if self._serving is not None:
            self._serving.shut_down()
        if not self.transport.is_closing():
            self.transport.close()

    def _look_for_peer(self, step: int) -> None:
        """See the module's "The end of input"."""
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
        self._probe = self._loop.call_later(delay, self._look_for_peer, step + 1)


def _is_closed(sock: socket.socket) -> bool:
    """Whether the peer reset the connection (Linux: the first byte of ``struct tcp_info``)."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSED
    except OSError:
        return True


def _is_loopback(host: str) -> bool:
    return host.startswith(("127.", "::ffff:127.")) or host == "::1"
