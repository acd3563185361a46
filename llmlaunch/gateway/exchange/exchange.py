"""The exchange: one request on its way to a replica, and the answer on its way back. ``lifecycle`` draws its phases.

Until content of the answer has gone to the client, the failure of a replica costs only another attempt. The head of an
answer is held back until its first content comes, so the client does not notice a replica that dies during the prefill,
either. After that, a failure ends the stream with an error event and a closed connection. A client that leaves ends the
exchange at once in any phase: engines stop working on a request when its connection is closed.

A client that waits for a stream gets a head of the gateway's own after KEEP_ALIVE_S, and comments from then on
(``keep_alive``). Still any replica may answer, but no longer with a status of its own: an error becomes an event.

``routing.router`` decides which replica gets the request, and when. ``response_relay`` makes what the client gets of the
answer.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.exchange.dialect_choice import DialectChoice
from llmlaunch.gateway.exchange.keep_alive import (
    COMMENT,
    KEEP_ALIVE_S,
    ErrorEvent,
    error_event,
    is_event_stream,
    only_comments,
    promises_events,
)
from llmlaunch.gateway.exchange.lifecycle import (
    ANSWERING,
    AfterBreak,
    ExchangePhase,
    after_break,
    refused_connection,
)
from llmlaunch.gateway.exchange.replica_connections import ReplicaConnections
from llmlaunch.gateway.exchange.response_relay import LAST_CHUNK, ResponseRelay, in_chunk
from llmlaunch.gateway.failures import FailureKind, InvalidResponse
from llmlaunch.gateway.http1 import headers
from llmlaunch.gateway.http1.client_connection import ClientConnection
from llmlaunch.gateway.http1.framing import BodyFraming, ResponseHead
from llmlaunch.gateway.http1.upstream import UpstreamConnection
from llmlaunch.gateway.observe.metrics import GatewayMetrics
from llmlaunch.gateway.observe.outcome import CLIENT_LEFT, RequestOutcome
from llmlaunch.gateway.observe.tracing import Tracing
from llmlaunch.gateway.paths import EndpointKind
from llmlaunch.gateway.payload.content_rewriter import ContentRewriter
from llmlaunch.gateway.payload.error_body import error_rewriter
from llmlaunch.gateway.payload.model_field import InvalidBody, asks_for_stream, with_model
from llmlaunch.gateway.payload.model_name_rewrite import rewriter_for
from llmlaunch.gateway.payload.multipart_form import form_asks_for_stream, with_model_in_form
from llmlaunch.gateway.payload.usage import tokens_in
from llmlaunch.gateway.request import ClientRequest
from llmlaunch.gateway.routing.health.silence import UPLOADED_BYTES, AwaitedResponse
from llmlaunch.gateway.routing.route_table import RoutedReplica
from llmlaunch.gateway.routing.router import Router

# In Python 3.11 a member of an enum costs ten times as much as a global, and a request needs a dozen of them.
_NEW, _WAITING, _CONNECTING, _RECONNECTING = (
    ExchangePhase.NEW,
    ExchangePhase.WAITING,
    ExchangePhase.CONNECTING,
    ExchangePhase.RECONNECTING,
)
_SENT, _RESPONDING, _STREAMING, _ENDED = (
    ExchangePhase.SENT,
    ExchangePhase.RESPONDING,
    ExchangePhase.STREAMING,
    ExchangePhase.ENDED,
)


@dataclass(slots=True)
class ExchangeContext:
    """What all exchanges of a gateway process share."""

    router: Router
    connections: ReplicaConnections
    metrics: GatewayMetrics
    tracing: Tracing | None
    cors_fields: Callable[[bytes], bytes]
    """See ``client_connection.Application.cors_fields``."""
    now: Callable[[], float]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    ended: Callable[[RequestOutcome], None]
    """Called once for each exchange, at its end."""
    stopping: bool = False
    """Whether the gateway accepts no more requests."""


class Exchange:
    """One request of a client that a replica has to answer.

    Implements ``client_connection.Responder``, ``upstream.ResponseReceiver``, ``routed_request.Waiter`` and
    ``silence_watch.InFlight``. The path of a request without failures is tuned by hand: attributes are read once, phases
    are set directly, and the chunks of a stream bypass this class (``UpstreamConnection.pass_chunks``).
    """

    __slots__ = (
        "_asks_for_stream", "_client", "_comment_at", "_connecting", "_connection", "_context", "_dialect", "_last_piece",
        "_last_sent", "_pool_is_stale", "_relay", "_request", "_routed", "_stream_begun", "decoding", "first_byte_s", "phase",
    )  # fmt: skip

    def __init__(
        self, context: ExchangeContext, client: ClientConnection, request: ClientRequest, model: str
    ) -> None:
        self.phase = _NEW
        self.decoding = False
        self.first_byte_s: float | None = None
        """Seconds from the request's head to the first content of its answer."""
        self._context = context
        self._client = client
        self._request = request
        self._routed = context.router.enter(request, model, self)
        dialect = request.endpoint.dialect
        self._dialect = None if dialect is None else DialectChoice(dialect, request)
        self._connecting: asyncio.Task[None] | None = None
        self._connection: UpstreamConnection | None = None
        self._relay: ResponseRelay
        """Set when an answer has begun, as ``phase`` shows."""
        self._pool_is_stale = False
        """A pooled connection was closed already: use new ones from now on."""
        self._last_piece: bytes | None = None
        """The last piece of the answer at the last call of :meth:`made_progress`."""
        self._asks_for_stream: bool | None = None
        """Whether the body asks for a stream; None: not parsed yet."""
        self._stream_begun = False
        """The client has the head of a stream, and comments, although there is no content yet."""
        self._comment_at = request.received + KEEP_ALIVE_S
        """When a stream gets the next comment if it stays silent."""
        self._last_sent: bytes | None = None
        """The last piece of the answer at the last call of :meth:`keep_alive`."""

    @property
    def started(self) -> bool:
        """Whether bytes of an answer have gone to the client."""
        return self.phase is _STREAMING or self._stream_begun

    # -- to a replica

    def start(self) -> None:
        """Choose a replica and send the request, or wait for one."""
        self._proceed(self._context.router.choose(self._routed))

    def choose_again(self) -> None:
        """Choose again: there may be a free replica now."""
        self._proceed(self._context.router.choose(self._routed))

    def _proceed(self, found: RoutedReplica | Reply | None) -> None:
        if found is None:
            self.phase = _WAITING
            return
        if isinstance(found, Reply):
            self.refused(found)
            return
        self._reach(found)

    def _reach(self, replica: RoutedReplica) -> None:
        connection = None if self._pool_is_stale else self._context.connections.take(replica.key)
        if connection is not None:
            self._send(connection, replica)
        else:
            self._connect(replica, _CONNECTING)

    def _connect(self, replica: RoutedReplica, phase: ExchangePhase) -> None:
        self.phase = phase
        self._connecting = self._context.spawn(self._connect_and_send(replica))

    async def _connect_and_send(self, replica: RoutedReplica) -> None:
        try:
            connection = await self._context.connections.connect(replica)
        except OSError as error:
            self._connecting = None
            if error.errno in (errno.EMFILE, errno.ENFILE):  # no fault of the replica's
                self.refused(errors.too_many_connections())
                return
            kind = refused_connection(self.phase, timed_out=isinstance(error, TimeoutError))
            said = "timeout" if kind is FailureKind.TIMEOUT else "refused"
            self._failed(f"it did not accept a connection ({error.strerror or said})", kind)
        else:
            self._connecting = None
            self._send(connection, replica)

    def _send(self, connection: UpstreamConnection, replica: RoutedReplica) -> None:
        request, model = self._request, self._routed.model
        path, body = request.upstream_path, request.body
        parts: Sequence[bytes | memoryview] = ()
        plain = replica.engine_model is not None and replica.engine_model != model
        renames = (plain or request.endpoint.name) and request.endpoint.kind is EndpointKind.PROXY
        try:
            if self._dialect is not None:
                path, body = self._dialect.outgoing(replica, self._routed.health)
                plain = plain or self._dialect.translates
            if renames and request.boundary:
                parts = with_model_in_form(body, request.boundary, replica.engine_model or model)
            elif renames:
                body = with_model(body, replica.engine_model or model)
        except InvalidBody as error:  # the body may be malformed after the model's name
            connection.drop()
            self.refused(errors.bad_request(error.message, error.param))
            return
        tracing = self._context.tracing
        if tracing is None:
            lines = headers.onward(request, plain)
        else:
            lines = headers.for_worker(tracing.fields(request), request.named_by_connection, plain)
        path = replica.prefix + path
        length = sum(map(len, parts)) if parts else len(body)
        head = headers.to_worker(request.method, path, connection.lines, lines, request.identity, length)
        self._connection = connection
        self.phase = _SENT
        connection.send(self, head, body, parts)

    # -- the answer (upstream.ResponseReceiver)

    def answer_began(self, head: ResponseHead, body: BodyFraming) -> None:
        """Prepare to relay the answer; or try another replica if this one is not ready (503)."""
        context, request, routed = self._context, self._request, self._routed
        if head.status == 503 and context.router.has_alternative(
            routed
        ):  # it drains or loads; another one may be ready
            self._drop_connection()
            self._failed("it is not ready (503)", FailureKind.UNAVAILABLE)
            return
        dialect = self._dialect
        if dialect is not None and dialect.is_missing(head.status):
            self._drop_connection()
            self._reach(routed.replica)
            return
        cors_fields = context.cors_fields(request.origin) if request.origin else b""
        rewriter: ContentRewriter | None
        if dialect is not None and dialect.translates:
            rewriter = dialect.translator(head)
        else:
            engine_model = routed.replica.engine_model
            renames = engine_model is not None and engine_model != routed.model
            rewriter = rewriter_for(head, routed.model) if renames else None
            if head.status >= 400:
                rewriter = error_rewriter(head) if dialect is None else dialect.native_error(head)
        if self._stream_begun and not is_event_stream(head):
            rewriter = ErrorEvent(head, request.endpoint.dialect)
        self._relay = relay = ResponseRelay(request, head, body, rewriter, cors_fields, context.stopping)
        if self._stream_begun:
            relay.head_is_sent()
        self.decoding = relay.decodes
        self.phase = _RESPONDING

    def answer_bytes(self, data: bytes) -> None:
        """Relay the next bytes of the answer."""
        relay = self._relay
        if self.phase is _STREAMING:
            data = relay.feed(data)
            if data:
                self._client.write(data)
            return
        if relay.held or only_comments(data):
            data = relay.hold(data)
            if not data:
                return
        data = relay.feed(data)
        if data:
            self._first_byte()
            self._client.write(relay.client_head + data)
            if relay.passes_chunks and self._connection is not None:
                self._connection.pass_chunks(relay.observer, self._client.transport.write)

    def answer_ended(self) -> None:
        """Relay the end of the answer, and end the exchange."""
        relay = self._relay
        if relay.ends_with_connection and relay.is_truncated():
            self.answer_broke("its connection closed", FailureKind.RESET, began=True)
            return
        context, status = self._context, relay.head.status
        data = b"" if self.phase is _STREAMING else relay.client_head
        if relay.held or relay.rewrites:
            try:
                data += relay.end(context.stopping)
            except InvalidResponse as error:
                self.answer_broke(str(error), FailureKind.INVALID, began=True)
                return
        if self._routed.suspect_key:
            context.router.answered(self._routed, status)
        self._connection = None
        if self.phase is not _STREAMING:
            self._first_byte()
        if data:
            self._client.write(data)
        self._end(status)
        self._client.finished(relay.keep_alive)

    def answer_broke(self, why: str, kind: FailureKind, began: bool) -> None:
        """The connection failed before the answer was complete: see ``lifecycle.after_break``."""
        context, routed, connection = self._context, self._routed, self._connection
        pooled = connection is not None and connection.used and not self._pool_is_stale
        self._connection = None
        step = after_break(
            self.phase, kind, pooled=pooled, began=began, after_s=context.now() - routed.sent_at
        )
        if step is AfterBreak.INTERRUPT:
            self._interrupted(why, kind)
        elif step is AfterBreak.REFUSE:
            self._note_failure(kind)
            self.refused(errors.invalid_replica_response(routed.model, why))
        elif step is AfterBreak.RECONNECT:
            context.metrics.retried("stale")
            self._pool_is_stale = True
            self._connect(routed.replica, _RECONNECTING)
        else:
            self._failed(why, kind)

    def _first_byte(self) -> None:
        context, request, routed = self._context, self._request, self._routed
        self.phase = _STREAMING
        context.router.began(routed, self._relay.head.status)
        if routed.suspect_key:
            context.router.trials.suspects.answer_began(routed.suspect_key)
        self.first_byte_s = context.now() - request.received
        context.metrics.first_byte(request.endpoint.label, routed.model, self.first_byte_s)

    # -- failures

    def _note_failure(self, kind: FailureKind) -> None:
        self._context.metrics.upstream_error(self._routed.replica.key, kind.value)
        self._context.router.failed(self._routed, kind)

    def _failed(self, why: str, kind: FailureKind) -> None:
        """Nothing has gone to the client yet: try again if that can help."""
        self._note_failure(kind)
        self._proceed(self._context.router.retry(self._routed, kind, why))

    def _interrupted(self, why: str, kind: FailureKind) -> None:
        self._note_failure(kind)
        self._context.router.release(self._routed)
        self._send_interruption(why)

    def _send_interruption(self, why: str) -> None:
        """End an answer early: a stream with an error event, anything else so that the client sees it is truncated."""
        relay = self._relay
        self._end(relay.head.status)
        event = relay.interruption(why)
        if event is None:
            self._client.abort(reset=not relay.framed)
            return
        self._client.write(event)
        self._client.finished(keep=False)

    def refused(self, reply: Reply) -> None:
        """End with the gateway's own ``reply``."""
        self._end(reply.status)
        request = self._request
        if not self._stream_begun:
            self._client.reply(request, reply)
            return
        event = error_event(reply.body, request.endpoint.dialect)
        self._client.write(in_chunk(event) + LAST_CHUNK if request.http11 else event)
        self._client.finished(request.keep_alive and not self._context.stopping)

    # -- keeping a stream open

    def keep_alive(self, now: float) -> None:
        """Send a comment if the client of a stream got nothing for KEEP_ALIVE_S. Called about once a second."""
        streaming = self.phase is _STREAMING
        if streaming and self._relay.tail and self._relay.tail[-1] is not self._last_sent:
            self._last_sent = self._relay.tail[-1]
            self._comment_at = now + KEEP_ALIVE_S
        if now < self._comment_at:
            return
        self._comment_at = now + KEEP_ALIVE_S
        if streaming:
            connection = self._connection
            if connection is not None and not connection.paused and (comment := self._relay.comment()):
                self._client.write(comment)
        elif self._stream_begun or self._begin_stream():
            self._client.write(in_chunk(COMMENT) if self._request.http11 else COMMENT)

    def _begin_stream(self) -> bool:
        """Send the head of the stream that the client asked for, unless something else is on its way. Whether it was sent."""
        if self.phase is _RESPONDING and not is_event_stream(self._relay.head):
            return False
        if not promises_events(self._request):
            self._comment_at = float("inf")
            return False
        self._client.begin_stream(self._request)
        self._stream_begun = True
        if self.phase is _RESPONDING:
            self._relay.head_is_sent()
            self.decoding = self._relay.decodes
        return True

    # -- the client (client_connection.Responder)

    def cancel(self) -> None:
        """End because the client left."""
        self._withdraw()
        self._end(CLIENT_LEFT)

    def shut_down(self) -> None:
        """End because the grace period is over, with an error that the client can see."""
        streaming = self.phase is _STREAMING
        self._withdraw()
        if streaming:
            self._send_interruption("the gateway is shutting down")
        else:
            self.refused(errors.stopping())

    def pause(self) -> None:
        """Stop reading from the replica: the client reads more slowly than the replica writes."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """Read from the replica again."""
        if self._connection is not None:
            self._connection.resume()

    # -- silence (silence_watch.InFlight)

    @property
    def replica(self) -> RoutedReplica | None:
        """The replica that has this request now; None: none has."""
        return self._routed.replica if self._routed.holds_slot else None

    @property
    def model(self) -> str:
        """The requested served name."""
        return self._routed.model

    @property
    def path(self) -> bytes:
        """The path at the replica, without its prefix."""
        if self._dialect is not None:
            return self._dialect.path
        return self._request.endpoint.upstream

    def made_progress(self) -> bool:
        """Whether anything came since the last call, or could not come because the connection is paused."""
        last = self._relay.tail[-1] if self.phase in ANSWERING and self._relay.tail else None
        came = last is not self._last_piece and not (last is not None and only_comments(last))
        self._last_piece = last
        return came or (self._connection is not None and self._connection.paused)

    def awaited(self) -> AwaitedResponse:
        """The response that it waits for, as ``routing.health.silence`` judges it."""
        body, boundary = self._request.body, self._request.boundary
        if self._asks_for_stream is None:
            self._asks_for_stream = (
                form_asks_for_stream(body, boundary) if boundary else asks_for_stream(body)
            )
        relay = self._relay if self.phase is _RESPONDING else None
        began = self.phase is _STREAMING or (
            relay is not None and bool(relay.tail) and not only_comments(relay.tail[-1])
        )
        size = 0 if began else len(body) // (UPLOADED_BYTES if boundary else 1)
        return AwaitedResponse(self._routed.sent_at, size, self._asks_for_stream or began)

    def gave_up_replica(self, seconds: float) -> None:
        """Leave a replica that has sent nothing for ``seconds`` and is taken for broken."""
        self._drop_connection()
        why = f"it sent nothing for {seconds:.0f} s"
        if self.phase is _STREAMING:
            self._interrupted(why, FailureKind.SILENT)
        else:
            self._failed(why, FailureKind.SILENT)

    # -- the end

    def _withdraw(self) -> None:
        self._context.router.withdraw(self._routed)
        self._drop_connection()

    def _drop_connection(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._connection is not None:
            self._connection.drop()
            self._connection = None

    def _end(self, status: int) -> None:
        context, request, routed = self._context, self._request, self._routed
        phase, self.phase = self.phase, _ENDED
        router = context.router
        router.release(routed)
        del routed.waiter  # breaks a reference cycle, which only the garbage collector would free
        tokens, counted = None, 0
        if phase is _STREAMING or phase is _RESPONDING:
            relay = self._relay
            if status == 200 and request.endpoint.has_usage:
                tokens = tokens_in(relay.tail)
            if request.estimate is not None:
                counted = relay.counted_tokens
        attempts, model = routed.attempts, routed.model
        context.ended(
            RequestOutcome(
                request,
                status,
                context.now() - request.received,
                self._client.peer,
                model,
                model if attempts else router.known_name(model),
                routed.replica.key if attempts else "",
                attempts,
                self.first_byte_s,
                tokens,
                counted,
            )
        )
