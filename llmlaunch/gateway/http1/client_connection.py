"""One client's connection: its requests in order, its time, its end.

Bytes become requests in ``receive``. Here they are answered one after the other: by the gateway itself or through an
:class:`Exchange`. Reading stops when a client sends many requests ahead; a client that does not read stops its replica.

**The end of input.** A client that closed and one that only will send no more look the same on the wire. Cancelling
at once would break the second kind; waiting would let a GPU work for the first. So, before the answer begins, the
gateway sends an interim ``100 Continue``, which any HTTP/1.1 client must skip (RFC 9110 §15.2), and looks at the
connection: a peer that closed answers with a reset. Once the answer has begun, the end of input means that it left.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import TYPE_CHECKING, cast

from llmlaunch.common.addresses import is_loopback
from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.exchange import Exchange
from llmlaunch.gateway.http1.delayed_response import DelayedResponse
from llmlaunch.gateway.http1.request_parser import AHEAD_LIMIT, RequestParser
from llmlaunch.gateway.limits.failed_keys import KeyVerdict
from llmlaunch.gateway.request import ClientRequest

if TYPE_CHECKING:
    from llmlaunch.gateway.app import Gateway

HEAD_TIMEOUT_S = 20.0
"""Seconds from the first byte of a head to its end, however slowly it drips."""
BODY_TIMEOUT_S = 30.0
"""Seconds without a byte of a body."""
IDLE_TIMEOUT_S = 75.0
HURRY_HEAD_S, HURRY_BODY_S = 1.0, 5.0
"""As the first two, where others have no file left for their connections."""
STALLED_TIMEOUT_S = 120.0
"""Seconds in which a client takes nothing of what waits for it, or not the rest before a connection closes."""
AHEAD_BYTES = 256 << 10
"""Bytes in the bodies of requests sent ahead of their turn before reading stops; or AHEAD_LIMIT requests."""
LINGER_S = 2.0
"""Seconds to read on after a last answer: closing on unread bytes would reset it away (RFC 9112 §9.6)."""
WRITE_HIGH = 256 << 10
_PROBES_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5)
_PROBE_AGAIN_S = 2.0
_TCP_CLOSED = 7
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_RESET = struct.pack("ii", 1, 0)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection(asyncio.Protocol):
    """See the module."""

    __slots__ = (
        "_current", "_gateway", "_half_closed", "_idle_since", "_lingering", "_now", "_paused_reading", "_probe",
        "_receiver", "_secure", "_serving", "_stalled_since", "_turning", "peer", "transport",
    )  # fmt: skip

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._now = time.monotonic
        self._receiver: RequestParser
        self._current: ClientRequest | None = None
        """Being answered."""
        self._serving: Exchange | DelayedResponse | None = None
        """By whom, when a replica is needed for it."""
        self._lingering = False
        self._half_closed = False
        self._secure = False
        self._turning = False
        self._paused_reading = False
        self._stalled_since = 0.0
        self._idle_since = 0.0
        self._probe: asyncio.TimerHandle | None = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        # TLS has no half-closed connections to wait with: whoever ends one has left.
        self._secure = transport.get_extra_info("sslcontext") is not None
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in _INTERNET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]).removeprefix("::ffff:") if peer else ""
        """Address of the other end."""
        gateway = self._gateway
        files = gateway.descriptors
        number = -1 if sock is None else sock.fileno()
        surplus = number >= files.tight and not files.take(number)
        self._receiver = RequestParser(
            gateway.surplus_rules if surplus else gateway.rules, is_loopback(self.peer)
        )
        self._idle_since = self._now()
        gateway.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._receiver.feed(data)
        self.turn()

    def eof_received(self) -> bool:
        """True keeps the connection for what is still to be written."""
        self._half_closed = True
        if self._gateway.early is not None and self in self._gateway.early:
            return not self._secure
        serving, current = self._serving, self._current
        if serving is None or current is None or self._receiver.amid or self._secure:
            return False
        if serving.started or not current.http11 or not hasattr(socket, "TCP_INFO"):
            return False
        self._look_for_peer(0)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.end()
        self._gateway.connections.discard(self)
        if self._probe is not None:
            self._probe.cancel()
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
        self.turn()

    def turn(self) -> None:
        """Answer what can be answered now, in order."""
        if self._turning:
            return
        self._turning = True
        gateway, receiver = self._gateway, self._receiver
        ahead = receiver.ready
        while not (self._serving or self._stalled_since or self.transport.is_closing()):
            if not ahead:
                if receiver.unread:
                    receiver.go_on()
                if not ahead:
                    break
            if gateway.early is not None and gateway.is_early(ahead[0]):
                gateway.early.add(self)
                break
            self._current = request = ahead.popleft()
            answer = request.reply or gateway.answer(request)
            if isinstance(answer, Reply):
                if answer.status == 401 and self._is_noise(request, answer):
                    continue
                gateway.ended(request, "", answer.status, client=self)
                self.reply(request, answer)
            else:
                self._serving = exchange = Exchange(gateway, self, request, answer)
                exchange.start()
                if self._half_closed and self._serving is not None:
                    self._look_for_peer(0)
        self._turning = False
        if ahead or receiver.unread or receiver.expecting or self._paused_reading:
            self._pace()

    def _is_noise(self, request: ClientRequest, reply: Reply) -> bool:
        """Whether a wrong key is one of many from its address: then its answer is taken care of, and not logged."""
        gateway = self._gateway
        verdict, source = gateway.noise.strike(gateway.client_of(self, request), self._now())
        gateway.metrics.wrong_key(verdict.value)
        if verdict is KeyVerdict.HOLD:
            self._serving = DelayedResponse(gateway, self, request, reply, source)
        elif verdict is KeyVerdict.CLOSE:
            request.keep_alive = False
            gateway.ended(request, "", reply.status, quiet=True)
            self.reply(request, reply)
        return verdict is not KeyVerdict.ANSWER

    def _pace(self) -> None:
        """Ask for a body that waits for it, and read as far ahead as there is room."""
        receiver = self._receiver
        ahead = receiver.ready
        if receiver.expecting and not (ahead or self._serving):
            receiver.expecting = False
            self.write(_CONTINUE)
        full = bool(ahead) and (len(ahead) >= AHEAD_LIMIT or sum(len(r.body) for r in ahead) > AHEAD_BYTES)
        full = full or bool(receiver.unread)
        if full != self._paused_reading and not self.transport.is_closing() and not self._half_closed:
            self._paused_reading = full
            if full:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    @property
    def serving(self) -> Exchange | None:
        """By whom a request of it is answered now, if a replica is needed for that."""
        serving = self._serving
        return serving if isinstance(serving, Exchange) else None

    # -- writing

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def reply(self, request: ClientRequest, reply: Reply) -> None:
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
        self._idle_since = self._now()
        if not keep or self._gateway.stopping:
            self._end()
        elif self._half_closed and not self._receiver.ready:
            self.transport.close()
        else:
            self.turn()

    def cut(self, hard: bool) -> None:
        """End in the middle of an answer, so that the client can tell. ``hard``: its framing does not say so itself."""
        self._serving = self._current = None
        self._idle_since = self._now()
        self._receiver.deaf = True
        if hard:
            sock = self.transport.get_extra_info("socket")
            if sock is not None and sock.family in _INTERNET:
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, _RESET
                )  # abort() alone ends like a last byte
            self.transport.abort()
        else:
            self.transport.close()

    def _end(self) -> None:
        receiver = self._receiver
        unread = receiver.deaf
        receiver.end()
        if not unread or self._half_closed or not self.transport.can_write_eof():
            self.transport.close()
        elif not self.transport.is_closing():
            self._lingering = True
            self.transport.write_eof()

    # -- time

    def sweep(self, now: float) -> None:
        """Called about once a second."""
        receiver = self._receiver
        if self._stalled_since:
            if now - self._stalled_since > STALLED_TIMEOUT_S:
                self.transport.abort()
        elif self._lingering or self.transport.is_closing():
            # What is still to be written would keep it open for as long as the client likes.
            limit = STALLED_TIMEOUT_S if self.transport.get_write_buffer_size() else LINGER_S
            if now - self._idle_since > limit:
                self.transport.abort()
        elif receiver.amid:
            limit = HEAD_TIMEOUT_S if receiver.in_head else BODY_TIMEOUT_S
            if now - receiver.since > limit and not self._paused_reading:
                receiver.refuse_rest(errors.request_timeout())
                self.turn()
        elif self._serving is None and now - self._idle_since > IDLE_TIMEOUT_S:
            self.transport.close()

    def idle_since(self, now: float) -> float:
        """Since when it is of no use to anybody, on the clock of ``now``; 0.0: it is in use."""
        receiver = self._receiver
        if self._serving is not None or receiver.ready or receiver.unread or self.transport.is_closing():
            return 0.0
        if not receiver.amid:
            return self._idle_since
        patience = HURRY_HEAD_S if receiver.in_head else HURRY_BODY_S
        return receiver.since if now - receiver.since > patience else 0.0

    def stop(self) -> None:
        """The gateway stops: an idle connection ends now, a busy one with its present answer."""
        if self._serving is None and not self._receiver.amid:
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
        self._probe = self._gateway.loop.call_later(delay, self._look_for_peer, step + 1)


def _is_closed(sock: socket.socket) -> bool:
    """Whether the peer reset the connection (Linux: the first byte of ``struct tcp_info``)."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSED
    except OSError:
        return True
