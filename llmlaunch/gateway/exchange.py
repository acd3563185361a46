"""One request on its way to a replica and back.

::

    start ─► admitted ─► connecting ─► sent ─► answer begins ─► bytes… ─► ended
               │  ▲          │           │           │             │
            waiting ┘        └─ retry ◄──┴───────────┘         interrupted
                          (nothing went to the client yet)

A request with which a replica died is a suspect from then on (``suspects``): it may have to wait before it is tried
once more, and is refused when another replica dies with it.

Until a byte of the answer went to the client, a replica's failure costs only another try: the head of an answer is
held back until its first content comes, so a replica that dies during the prefill is invisible too. After that, a
failure ends the stream with an error event and a closed connection. A client that leaves ends the exchange at once,
wherever it is; closing the connection is how every engine learns that nobody reads any more.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.http1 import headers
from llmlaunch.gateway.http1.answer_ends import is_whole
from llmlaunch.gateway.http1.framing import BodyFraming, ResponseHead
from llmlaunch.gateway.http1.upstream import UpstreamConnection
from llmlaunch.gateway.limits.rates import TokenMeter
from llmlaunch.gateway.payload.model_field import InvalidBody, asks_for_stream, renamed
from llmlaunch.gateway.payload.model_name_rewrite import NameRewriter, rewriter_for
from llmlaunch.gateway.payload.usage import PIECES, Tokens, tokens_in
from llmlaunch.gateway.request import ClientRequest, EndpointKind
from llmlaunch.gateway.routing.affinity import prefix_of
from llmlaunch.gateway.routing.choice import pick, places_to_wait
from llmlaunch.gateway.routing.replica_health import ReplicaHealth
from llmlaunch.gateway.routing.request_queue import QueueTicket
from llmlaunch.gateway.routing.route_table import RoutedReplica
from llmlaunch.gateway.routing.silence import AwaitedResponse
from llmlaunch.gateway.routing.suspects import key_of

if TYPE_CHECKING:
    from llmlaunch.gateway.app import Gateway
    from llmlaunch.gateway.http1.client_connection import ClientConnection

ATTEMPTS = 3
"""Replicas one request may be sent to. It may meet fewer deaths: ``suspects.DEATHS``."""
WAIT_S = 300.0
"""Seconds a request may wait for a free slot: half of what OpenAI's clients wait for an answer. The queue is bounded, and
whoever leaves it is noticed, so a long wait costs nobody else anything."""
CLIENT_LEFT = 499
_OWN_FAULTS = frozenset((500, 502, 504))
"""Answers that count against a replica's health."""
_DEATHS = frozenset(("reset", "silent"))
"""Failures that may be the request's doing."""
_STALE_S = 1.0
"""A connection that was closed while it lay idle breaks within this time of its use."""


class Exchange:
    """See the module. Implements ``upstream.AnswerTaker``."""

    __slots__ = (
        "_body",
        "_broke",
        "_chunked",
        "_client",
        "_framed",
        "_fresh",
        "_gateway",
        "_head",
        "_heard",
        "_holds",
        "_keep",
        "_load",
        "_meter",
        "_pending",
        "_probes",
        "_replica",
        "_request",
        "_restorer",
        "_sent_at",
        "_started",
        "_streams",
        "_tail",
        "_task",
        "_ticket",
        "_upstream",
        "attempts",
        "decoding",
        "first_byte_s",
        "held_since",
        "key",
        "name",
        "replica_key",
        "tokens",
        "tried",
    )  # fmt: skip

    def __init__(self, gateway: Gateway, client: ClientConnection, request: ClientRequest, name: str) -> None:
        self.name = name
        self.decoding = False
        self._gateway = gateway
        self._client = client
        self._request = request
        self.attempts = 0
        self.replica_key = ""
        """The replica that was asked last."""
        self.tokens: Tokens | None = None
        """What the answer told that it took, once it is over."""
        self.first_byte_s: float | None = None
        """Seconds from the request's head to the first byte of its answer."""
        self._tail: deque[bytes] = deque(maxlen=PIECES)
        self._heard: bytes | None = None
        """The end of the answer when it was looked at last."""
        self._streams: bool | None = None
        """Whether a stream was asked for; None: nobody has looked yet."""
        self._meter = None if request.grant.limits.tpm is None else TokenMeter()
        self.tried: tuple[str, ...] = ()
        """Replicas that failed this request."""
        self._fresh = False
        """A pooled connection turned out dead: the next is a new one."""
        self._broke = False
        """And the replica with it, if it does not take the new one."""
        self._sent_at = 0.0
        """When a replica was chosen last."""
        self.key = b""
        """What a suspect is remembered by; empty: it is none."""
        self.held_since: float | None = None
        """When a suspect began to wait for its turn."""
        self._ticket: QueueTicket[Exchange] | None = None
        self._task: asyncio.Task[None] | None = None
        self._replica: RoutedReplica
        self._load: ReplicaHealth
        self._holds = False
        """A slot of the replica is ours."""
        self._probes = False
        """The replica's breaker is half open, and this request shows whether it closes."""
        self._upstream: UpstreamConnection | None = None
        self._head: ResponseHead
        self._body: BodyFraming
        self._restorer: NameRewriter | None = None
        self._chunked = False
        """The client gets the answer in chunks."""
        self._framed = False
        """And can tell by them, or by its length, whether it is whole."""
        self._pending = b""
        """The head of the answer until its first content."""
        self._started = False
        self._keep = request.keep_alive

    # -- finding a replica

    def start(self) -> None:
        gateway = self._gateway
        gateway.retries.request()
        if gateway.ledger is not None and gateway.ledger.has_news:
            gateway.hear_of_deaths()
        if gateway.suspects.sizes:
            self.key = gateway.suspects.recall(self._request.body)
        self._admit("")

    def _admit(self, why: str) -> None:
        """Take a replica or a place in the queue. ``why``: what the last try said."""
        gateway = self._gateway
        replicas = self.among(gateway.table.serving.get(self.name, ()))
        if not replicas:
            if self.holder:
                why = "the one that holds the response is gone"
            self._refuse(errors.no_answer(self.name, why) if why else gateway.absent(self.name))
            return
        self._sent_at = now = gateway.now()
        tried = self.tried
        if self.key:
            avoided = self._avoided(now)
            if avoided is None:
                return
            if avoided and all(r.key in tried or r.key in avoided for r in replicas):
                gateway.hold_back(self)
                return
            tried = (*tried, *avoided)
        try:
            chosen = self._pick(replicas, tried, now)
        except LookupError:
            self._refuse(errors.no_answer(self.name, why or "every one was tried"))
            return
        if chosen is not None:
            self._go(chosen)
            return
        room, grant = gateway.room, self._request.grant
        bound = places_to_wait(replicas, gateway.crew.size)
        if room.waiting(self.name) >= bound:
            crowding = room.crowding(self.name, grant.name)
            if crowding is not None:
                crowding.item.crowded_out()
        self._ticket = room.enter(self, self.name, now + WAIT_S, bound, grant.name, grant.limits.priority)
        if self._ticket is None:
            self._refuse(errors.too_many(self.name, room.waiting(self.name)))

    def _avoided(self, now: float) -> frozenset[str] | None:
        """Where this suspect may not be sent now; None: it was refused, or has to wait."""
        suspects = self._gateway.suspects
        seconds = suspects.refusal(self.key, now)
        if seconds:
            self._refuse(errors.breaks_replicas(self.name, seconds))
            return None
        if suspects.is_free(self.key):
            return frozenset()
        if self.held_since is None:  # those that were at the same death have to come together first
            self.held_since = now
            avoided = None
        else:
            avoided = suspects.avoided(self.key, now - self.held_since, now)
        if avoided is None:
            self._gateway.hold_back(self)
        return avoided

    def try_again(self) -> None:
        """It may be this suspect's turn."""
        self._admit("")

    @property
    def holder(self) -> str:
        """The only replica that can answer this request, by key; empty when any can."""
        return self._request.holder

    def among(self, replicas: tuple[RoutedReplica, ...]) -> tuple[RoutedReplica, ...]:
        """Those of ``replicas`` that can answer this request."""
        holder = self.holder
        return replicas if not holder else tuple(r for r in replicas if r.key == holder)

    def _pick(
        self, replicas: Sequence[RoutedReplica], tried: Sequence[str], now: float
    ) -> RoutedReplica | None:
        gateway = self._gateway
        dispatch = gateway.table.dispatch
        turn = gateway.turn(self.name) if dispatch == "round_robin" else 0
        prefix = prefix_of(self._request.body) if dispatch == "prefix" and len(replicas) > 1 else b""
        return pick(replicas, gateway.loads, tried, dispatch, now, random.random(), turn, prefix)

    def called(self) -> None:
        """A slot may be free: leave the queue and try."""
        self._leave_queue()
        self._admit("")

    def waited_out(self) -> None:
        self._leave_queue()
        self._refuse(errors.waited_too_long(self.name, WAIT_S))

    def crowded_out(self) -> None:
        """Another key's request needs the place, and this key has most of them."""
        self._leave_queue()
        self._refuse(errors.crowded_out(self.name))

    def _leave_queue(self) -> None:
        if self._ticket is not None:
            self._gateway.room.leave(self._ticket)
            self._ticket = None

    def _go(self, replica: RoutedReplica) -> None:
        gateway = self._gateway
        self.attempts += 1
        self._replica = replica
        self.replica_key = replica.key
        self._load = load = gateway.load(replica.key)
        load.in_flight += 1
        if load.failures and not load.probing:
            load.probing = self._probes = True
        self._holds = True
        if self.key:
            self.held_since = None
            gateway.suspects.begins(self.key, replica.key, self._sent_at)
        connection = None if self._fresh else gateway.pool.take(replica.key)
        if connection is not None:
            self._send(connection, replica)
        else:
            self._task = gateway.spawn(self._connect(replica))

    async def _connect(self, replica: RoutedReplica) -> None:
        try:
            connection = await self._gateway.pool.connect(replica)
        except OSError as error:
            self._task = None
            if error.errno in (errno.EMFILE, errno.ENFILE):  # no fault of the replica's
                self._refuse(errors.out_of_files())
                return
            kind = "timeout" if isinstance(error, TimeoutError) else "refused"
            if self._broke and kind == "refused":
                kind = "reset"  # what looked like an idle connection's end was the replica's
            self._failed(f"it did not accept a connection ({error.strerror or kind})", kind)
        else:
            self._task = None
            self._send(connection, replica)

    def _send(self, connection: UpstreamConnection, replica: RoutedReplica) -> None:
        request = self._request
        body = request.body
        plain = replica.engine_model is not None and replica.engine_model != self.name
        if (plain or request.model_in_path) and request.endpoint.kind is EndpointKind.PROXY:
            try:
                body = renamed(body, replica.engine_model or self.name)
            except (
                InvalidBody
            ) as error:  # the short way to the model's name may pass a body that is broken elsewhere
                connection.drop()
                self._refuse(errors.bad_request(error.message, error.param))
                return
        path = replica.prefix + request.upstream_path
        tracing = self._gateway.tracing
        lines = request.onward(plain) if tracing is None else tracing.onward(request, plain)
        head = headers.to_worker(request.method, path, connection.lines, lines, request.identity, len(body))
        self._upstream = connection
        connection.send(self, head, body)

    # -- the answer (upstream.AnswerTaker)

    def answer_began(self, head: ResponseHead, body: BodyFraming) -> None:
        if head.status == 503 and self._others_exist():
            # A replica that drains or loads says so; somebody else may be ready.
            self._drop_upstream()
            self._failed("it is not ready (503)", "unavailable")
            return
        self._load.spoke += 1
        if head.status in _OWN_FAULTS:
            self._load.erred(self._gateway.now())
        elif self._load.failures or self._load.errors:
            self._load.answered()
        self._head, self._body = head, body
        engine_model = self._replica.engine_model
        if engine_model is not None and engine_model != self.name:
            self._restorer = rewriter_for(head, self.name)
        http11 = self._request.http11
        self.decoding = self._restorer is not None or (body.chunked and not http11)
        sized = head.length is not None and self._restorer is None
        self._chunked = chunked = http11 and (self._restorer is not None or body.chunked)
        self._framed = sized or chunked
        self._keep = self._keep and self._framed and not self._gateway.stopping
        if self._restorer is None or self._restorer.streams:
            self._pending = self._client_head(head.length if sized else None, chunked)

    def answer_bytes(self, data: bytes) -> None:
        self._note(data)
        if self._restorer is not None:
            data = self._restorer.feed(data)
            if not data:
                return
            if self._request.http11:
                data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._started:
            self._client.write(data)
            return
        self._first_byte()
        self._client.write(self._pending + data)
        if self._body.chunked and not self.decoding and self._upstream is not None:
            note = self._tail.append if self._meter is None else self._note
            self._upstream.pass_chunks(note, self._client.transport.write)

    def _note(self, data: bytes) -> None:
        """Keep what may tell how many tokens it took."""
        self._tail.append(data)
        if self._meter is not None:
            self._meter.saw(data)

    def answer_ended(self) -> None:
        if self._body.until_close and not is_whole(self._head.get(b"content-type"), b"".join(self._tail)):
            self.answer_broke("its connection closed", "reset", began=True)
            return
        if self.key and self._head.status < 500:
            self._gateway.was_answered(self.key)
        self._upstream = None
        data = b"" if self._started else self._pending
        if self._restorer is not None:
            data += self._restored_end(self._restorer)
        if not self._started:
            self._first_byte()
        if data:
            self._client.write(data)
        self._over(self._head.status)
        self._client.finished(self._keep)

    def answer_broke(self, why: str, kind: str, began: bool) -> None:
        reused = self._upstream is not None and self._upstream.used and not self._fresh
        self._upstream = None
        if self._started:
            self._interrupted(why, kind)
        elif kind == "bad_answer":
            self._note_failure(kind)
            self._refuse(errors.bad_answer(self.name, why))
        elif reused and kind == "reset" and not began and self._gateway.now() - self._sent_at < _STALE_S:
            self._connect_anew()
        else:
            self._failed(why, kind)

    # -- the client

    def cancel(self) -> None:
        """The client left."""
        self._withdraw()
        self._over(CLIENT_LEFT)

    def shut_down(self) -> None:
        """The grace is over: end with an error the client can see."""
        self._withdraw()
        if self._started:
            self._tell_interruption("the gateway is shutting down")
        else:
            self._refuse(errors.stopping())

    def pause(self) -> None:
        """The client reads slower than the replica writes."""
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    @property
    def client(self) -> ClientConnection:
        """Who asked."""
        return self._client

    @property
    def started(self) -> bool:
        """Bytes of an answer went to the client."""
        return self._started

    @property
    def metered_tokens(self) -> int:
        """About how many tokens of an answer came, when its key has a limit for them."""
        return 0 if self._meter is None else self._meter.tokens

    # -- silence

    @property
    def replica(self) -> RoutedReplica | None:
        """Who has this request now."""
        return self._replica if self._holds else None

    @property
    def path(self) -> bytes:
        """Where it is sent at the replica."""
        return self._request.endpoint.upstream

    def heard(self) -> bool:
        """Whether anything came since this was asked last, or could have come and was not read."""
        last = self._tail[-1] if self._tail else None
        came = last is not self._heard
        self._heard = last
        return came or (self._upstream is not None and self._upstream.paused)

    def waiting(self) -> AwaitedResponse:
        if self._streams is None:
            self._streams = asks_for_stream(self._request.body)
        began = self._started or bool(self._tail)
        return AwaitedResponse(self._sent_at, 0 if began else len(self._request.body), self._streams or began)

    def silenced(self, seconds: float) -> None:
        """The replica has said nothing for ``seconds``, and is taken for broken."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._drop_upstream()
        why = f"it said nothing for {seconds:.0f} s"
        if self._started:
            self._interrupted(why, "silent")
        else:
            self._failed(why, "silent")

    # -- endings

    def _client_head(self, length: int | None, chunked: bool) -> bytes:
        framing = b"" if self._keep else b"connection: close\r\n"
        if chunked:
            framing += b"transfer-encoding: chunked\r\n"
        elif length is not None and self._head.status not in (204, 304):
            framing += b"content-length: %d\r\n" % length
        head, request = self._head, self._request
        framing += self._gateway.cors_fields(request.origin)
        return headers.to_client(head.status, head.reason, head.onward, request.identity, framing)

    def _restored_end(self, restorer: NameRewriter) -> bytes:
        data = restorer.end()
        if not restorer.streams:
            self._keep = self._request.keep_alive and not self._gateway.stopping
            return self._client_head(len(data), chunked=False) + data
        if not self._request.http11:
            return data
        return (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + b"0\r\n\r\n"

    def _first_byte(self) -> None:
        self._started = True
        gateway, request = self._gateway, self._request
        if self.key:
            gateway.suspects.speaks(self.key)
        self.first_byte_s = gateway.now() - request.received
        gateway.metrics.first_byte(request.label, self.name, self.first_byte_s)

    def _note_failure(self, kind: str) -> None:
        gateway = self._gateway
        gateway.metrics.upstream_error(self._replica.key, kind)
        if kind != "unavailable":
            self._load.failed(gateway.now())
        if kind in _DEATHS and self._request.body:
            self.key = self.key or key_of(self._request.body)
            gateway.died(self._replica, self.key, self._request, self._sent_at)

    def _connect_anew(self) -> None:
        """The replica closed an idle connection just as it was taken, which says nothing about its health; or it died.

        Whether it takes another connection shows which of them it was.
        """
        self._gateway.metrics.retried("stale")
        self._fresh = self._broke = True
        self._task = self._gateway.spawn(self._connect(self._replica))

    def _failed(self, why: str, kind: str) -> None:
        """Nothing went to the client yet: try again where that can help."""
        gateway = self._gateway
        self._restorer = None
        self._pending = b""
        self._broke = False
        self._note_failure(kind)
        self.tried += (self._replica.key,)
        serving = gateway.table.serving.get(self.name, ())
        if len(serving) > 1 and all(replica.key in self.tried for replica in serving):
            self.tried = (self._replica.key,)  # who failed before this one may be back
        self._release()
        seconds = gateway.suspects.refusal(self.key, gateway.now()) if self.key else 0.0
        if seconds:
            self._refuse(errors.breaks_replicas(self.name, seconds))
            return
        if self.attempts >= ATTEMPTS:
            self._refuse(errors.no_answer(self.name, why))
            return
        if self._others_exist():
            if not gateway.retries.take(gateway.now()):
                self._refuse(errors.no_answer(self.name, f"{why}, and too many requests are retried already"))
                return
            gateway.metrics.retried(kind)
        self._admit(why)

    def _others_exist(self) -> bool:
        """Whether a try after this one has a replica to go to."""
        tried = (*self.tried, self._replica.key) if self._holds else self.tried
        replicas = self.among(self._gateway.table.serving.get(self.name, ()))
        return self.attempts < ATTEMPTS and any(r.key not in tried for r in replicas)

    def _interrupted(self, why: str, kind: str) -> None:
        self._note_failure(kind)
        self._release()
        self._tell_interruption(why)

    def _tell_interruption(self, why: str) -> None:
        """The answer can not go on. A stream gets an error event; anything else is cut so that it can be seen."""
        self._over(self._head.status)
        event = errors.stream_error(f"The answer was interrupted: {why}.")
        streams = self._head.get(b"content-type").startswith(b"text/event-stream")
        filler = b"" if self.decoding else self._body.before_interruption()
        if not streams or filler is None:
            self._client.cut(hard=not self._framed)
            return
        event = b"\n\n" + event  # ends an event that was cut; between events it means nothing
        if self._chunked:
            event = filler + b"%x\r\n%b\r\n" % (len(event), event)
        self._client.write(event)
        self._client.finished(keep=False)

    def _refuse(self, reply: Reply) -> None:
        self._over(reply.status)
        self._client.reply(self._request, reply)

    def _withdraw(self) -> None:
        self._leave_queue()
        if self.held_since is not None:
            self._gateway.let_go(self)
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._drop_upstream()

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.drop()
            self._upstream = None

    def _release(self) -> None:
        if self._holds:
            self._holds = False
            self._load.in_flight -= 1
            if self.key:
                self._gateway.suspects.ends(self.key, self._replica.key)
            if self._probes:
                self._probes = self._load.probing = False
            self._gateway.freed(self._replica)

    def _over(self, status: int) -> None:
        self._release()
        gateway, request = self._gateway, self._request
        # A name that no replica was asked for may be anything, and metrics never forget one.
        model = self.name if self.attempts else gateway.known(self.name)
        if status == 200 and request.endpoint.metered:
            self.tokens = tokens_in(self._tail)
            gateway.metrics.used(model, request.grant.name, self.tokens)
        gateway.ended(request, model, status, self)
