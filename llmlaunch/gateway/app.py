"""What all connections share: the route table, loads, keys, counters; and the few answers that need no worker."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from heapq import nsmallest
from operator import itemgetter
from typing import Any

from llmlaunch.common.addresses import is_loopback
from llmlaunch.common.browser_guard import Door, not_json
from llmlaunch.gateway import client_address, errors, request
from llmlaunch.gateway.client_address import Network
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.exchange import CLIENT_LEFT, Exchange
from llmlaunch.gateway.http1.client_connection import ClientConnection
from llmlaunch.gateway.http1.head_cache import HeadCache
from llmlaunch.gateway.http1.open_files import OpenFiles
from llmlaunch.gateway.http1.request_parser import ParserRules
from llmlaunch.gateway.http1.upstream import UpstreamPool
from llmlaunch.gateway.limits.body_memory import BodyMemory
from llmlaunch.gateway.limits.failed_keys import FailedKeys
from llmlaunch.gateway.limits.keys import KeyRing
from llmlaunch.gateway.limits.rates import BYTES_PER_TOKEN, UNLIMITED, KeyAccount, part
from llmlaunch.gateway.multiprocess.death_ledger import DeathRecord, named, number_of
from llmlaunch.gateway.multiprocess.shared_counters import ProcessGroup, alone
from llmlaunch.gateway.observe import access_log as access
from llmlaunch.gateway.observe import metrics
from llmlaunch.gateway.observe.access_log import AccessLog
from llmlaunch.gateway.observe.metrics import GatewayMetrics
from llmlaunch.gateway.observe.tracing import Tracing
from llmlaunch.gateway.payload.model_field import InvalidBody
from llmlaunch.gateway.request import ClientRequest, EndpointKind
from llmlaunch.gateway.routing.choice import is_full
from llmlaunch.gateway.routing.replica_health import ReplicaHealth, RetryBudget
from llmlaunch.gateway.routing.request_queue import RequestQueue
from llmlaunch.gateway.routing.route_table import RoutedReplica, RouteTable
from llmlaunch.gateway.routing.silence_watch import SilenceWatch
from llmlaunch.gateway.routing.suspects import SUSPECTED_S, Suspects
from llmlaunch.gateway.routing.target import target

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 << 20
MAX_BODIES_BYTES = 256 << 20
START_GRACE_S = 5.0
"""Seconds after which a gateway calls itself up even if no controller has answered yet."""
FIRST_TABLE_S = 2.0
"""Seconds in which requests wait for the first route table; then they are answered without one."""
ACCESS_FLUSH_S = 0.1
TRIALS_S = 0.01
"""Between two looks whether a suspect's turn has come."""
_PREFLIGHT_SECONDS = 600
_PROXIED = frozenset((EndpointKind.PROXY, EndpointKind.CHECK, EndpointKind.RESPONSE))


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    max_body_bytes: int = MAX_BODY_BYTES
    max_bodies_bytes: int = MAX_BODIES_BYTES
    """Of all requests together, in all processes. Each process has room for one of the largest bodies at least."""
    door: Door = field(default_factory=Door)
    """Whom it lets in. Its origins are those that browsers may call from, and read answers."""
    trusted_proxies: tuple[Network, ...] = ()
    """Whose X-Forwarded-For is believed."""
    access_log: int | None = None
    """The file descriptor that gets a JSON line for every request; None: no such log."""


class Gateway:
    """One gateway process. Lives in one event loop; nothing here is touched from anywhere else."""

    def __init__(
        self,
        options: GatewayOptions,
        keys: KeyRing | None = None,
        crew: ProcessGroup | None = None,
        tracing: Tracing | None = None,
        worker_keys: str = "",
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = time.monotonic  # uvloop's own clock stands still within one turn of the loop
        self.table = RouteTable()
        self.heard = False
        """The controller has answered once."""
        self.early: set[ClientConnection] | None = set()
        """Whose next request waits for the first route table; None: nobody has to any more."""
        self.loop.call_later(FIRST_TABLE_S, self.begin)
        self.controller_up = False
        self.loads: dict[str, ReplicaHealth] = {}
        self.noise = FailedKeys()
        self.room: RequestQueue[Exchange] = RequestQueue()
        self.suspects = Suspects()
        self._held_back: list[Exchange] = []
        """Suspects that wait for their turn."""
        self.accounts: dict[str, KeyAccount] = {}
        """By key name, of those that have limits."""
        self.tracing = tracing
        self.crew = crew or alone()
        self.ledger = self.crew.ledger
        self.metrics = GatewayMetrics(self.crew.own)
        self.turns: dict[str, int] = {}
        """Model → requests that took a turn, where replicas are chosen in turn."""
        self.retries = RetryBudget(at=self.now())
        self.descriptors = OpenFiles(self._close_idle, self.now)
        self.pool = UpstreamPool(self.descriptors, worker_keys)
        self.vigil = SilenceWatch(self)
        self.connections: set[ClientConnection] = set()
        self.warning = ""
        """What people should know of how it runs; a supervisor shows it."""
        self.stopping = False
        self.broken = False
        """Connections to this gateway are lost in another of its processes, and nobody replaces that one."""
        bodies = BodyMemory(max(part(options.max_bodies_bytes, self.crew.size), options.max_body_bytes))
        self.rules = ParserRules(
            self.screen, self.new_identity, self.now, options.max_body_bytes, bodies=bodies
        )
        self.surplus_rules = replace(self.rules, screen=self._screen_surplus, seen=HeadCache())
        """For connections that nobody made room for."""
        self.identity = f"gateway-{os.urandom(6).hex()}"
        self.on_drained: asyncio.Event = asyncio.Event()
        self._proxies = options.trusted_proxies
        self._door = options.door
        self._origins = frozenset(origin.encode() for origin in options.door.origins)
        self._keys = keys
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = self.now()
        self._id_prefix = os.urandom(5).hex()
        self._id_count = 0
        self._date = (0, b"")
        self._draining: frozenset[str] = frozenset()
        self._chatty = log.isEnabledFor(logging.DEBUG)
        self._access = None if options.access_log is None else AccessLog(options.access_log, self._flush_soon)
        self._told_full = False
        self._publish()  # else a process without a table would not count among those whose oldest is told

    # -- small services

    def new_identity(self) -> bytes:
        """An x-request-id: unlike that of any other gateway, and cheap."""
        self._id_count += 1
        return b"req-%b%x" % (self._id_prefix.encode(), self._id_count)

    def date(self) -> bytes:
        second = int(time.time())
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return self._date[1]

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cors_fields(self, origin: bytes) -> bytes:
        """Header lines that let a browser on ``origin`` read the answer; none for a stranger."""
        if not self._origins or not origin or not (origin in self._origins or b"*" in self._origins):
            return b""
        return (
            b"access-control-allow-origin: %b\r\nvary: origin\r\n"
            b"access-control-expose-headers: x-request-id, retry-after\r\n" % origin
        )

    # -- requests

    def screen(self, asked: ClientRequest) -> Reply | None:
        """Everything that can be refused, or answered, before a body is read."""
        path = asked.path
        found = asked.endpoint = request.endpoint(path)
        guarded = self._keys is not None and self._needs_key(asked)
        host, origin, site = _said(asked)
        # Who shows a key is no stranger's page: browsers send none of their own accord.
        if not guarded or asked.method == b"OPTIONS":
            refusal = self._door.refusal(host, origin, site)
            if refusal is not None:
                return errors.not_let_in(refusal)
        if asked.method == b"OPTIONS":
            return self._options(asked)
        if guarded and self._keys is not None:
            grant = self._keys.grant_of(asked.authorization)
            if grant is None:
                return errors.wrong_key(missing=not asked.authorization)
            asked.grant = grant
        if found.kind is EndpointKind.NOWHERE:
            return errors.unknown_path(path.decode("latin-1"))
        if asked.method not in found.methods:
            return errors.wrong_method(asked.method.decode(), path.decode("latin-1"), found.allowed)
        if asked.method == b"POST":
            wrong = not_json(asked.field(b"content-type").decode("latin-1"), origin, site)
            if wrong is not None:
                return errors.not_let_in(wrong)
        return None

    def _screen_surplus(self, asked: ClientRequest) -> Reply | None:
        """As :meth:`screen`, for a connection that is one too many: it may ask how we are, once."""
        asked.keep_alive = False
        reply = self.screen(asked)
        if asked.endpoint.kind in (EndpointKind.HEALTH, EndpointKind.READY, EndpointKind.METRICS):
            return reply
        return errors.out_of_files()

    def is_early(self, asked: ClientRequest) -> bool:
        """Whether ``asked`` should wait for the first route table, which is moments away after most starts."""
        return (
            self.early is not None and asked.reply is None and asked.endpoint.kind is not EndpointKind.METRICS
        )

    def begin(self) -> None:
        """Answer what came early: there is a table, or none is waited for any longer."""
        early, self.early = self.early, None
        for connection in early or ():
            connection.turn()

    def answer(self, asked: ClientRequest) -> Reply | str:
        """The gateway's own answer, or the name of the model whose replicas have to answer."""
        found = asked.endpoint
        if found.kind in _PROXIED:
            try:
                name = target(asked, self.table)
            except InvalidBody as error:
                return errors.bad_request(error.message, error.param)
            if name is None:
                return errors.unknown_response(found.name)
            return name if asked.grant.limits is UNLIMITED else self._within_limits(asked, name)
        if found.kind is EndpointKind.MODELS:
            names = filter(asked.grant.limits.allows, self.table.names)
            return _json(200, {"object": "list", "data": [self._model(name) for name in names]})
        if found.kind is EndpointKind.MODEL:
            if not asked.grant.limits.allows(found.name):
                return errors.model_not_allowed(found.name)
            if found.name in self.table.serving:
                return _json(200, self._model(found.name))
            return self.absent(found.name)
        if found.kind is EndpointKind.HEALTH:
            return self._health()
        if found.kind is EndpointKind.READY:
            ready = bool(self.table.serving)
            return _json(200 if ready else 503, {"status": "ready" if ready else "not ready"})
        return self._metrics()

    def _within_limits(self, asked: ClientRequest, name: str) -> Reply | str:
        """``name``, with the request put down to its key's account; or why its key can not have it now."""
        key, limits = asked.grant.name, asked.grant.limits
        if not limits.allows(name):
            return errors.model_not_allowed(name)
        account = self.accounts.get(key)
        if account is None:
            account = self.accounts[key] = KeyAccount()
        estimate = len(asked.body) // BYTES_PER_TOKEN
        refusal = account.admit(limits, self.now(), estimate)
        if refusal is not None:
            self.metrics.was_limited(key, refusal.what)
            return errors.limited(refusal.what, asked.grant.whole.of(refusal.what), refusal.wait_s)
        asked.estimate = estimate
        return name

    def _settle(self, asked: ClientRequest, status: int, exchange: Exchange) -> None:
        """The account of a key with limits gets what the request really took."""
        estimate = asked.estimate or 0
        used = 0
        if status in (200, CLIENT_LEFT):
            used = sum(exchange.tokens) if exchange.tokens else estimate + exchange.metered_tokens
        self.accounts[asked.grant.name].settle(estimate, used)

    def absent(self, name: str) -> Reply:
        """Why nobody serves ``name`` now."""
        table = self.table
        if name in table.expected or any(name in r.names for r in table.replicas.values()):
            return errors.model_not_ready(name)
        if not self.heard:
            return errors.not_started()
        if not table.settled and not table.expected:
            return errors.model_not_ready(name)
        return errors.unknown_model(name)

    def known(self, name: str) -> str:
        """``name`` when it is one of ours: metrics hold no others."""
        return name if name in self.table.serving or name in self.table.expected else ""

    def client_of(self, connection: ClientConnection, asked: ClientRequest) -> str:
        """The address that ``asked`` came from, through proxies that are trusted."""
        if not self._proxies:
            return connection.peer
        return client_address.client_of(connection.peer, asked.all_of(b"x-forwarded-for"), self._proxies)

    def _is_from_here(self, asked: ClientRequest) -> bool:
        """Whether somebody on this machine asks, and no proxy on it for somebody else."""
        if not asked.local or not self._proxies:
            return asked.local
        told = asked.all_of(b"x-forwarded-for")
        found = (client_address.client_of(peer, told, self._proxies) for peer in ("127.0.0.1", "::1"))
        return all(map(is_loopback, found))

    def ended(
        self,
        asked: ClientRequest,
        model: str,
        status: int,
        exchange: Exchange | None = None,
        client: ClientConnection | None = None,
        quiet: bool = False,
    ) -> None:
        """A request is over. ``exchange``: who tried to have it answered, if it came so far; else ``client``.

        ``quiet``: the access log tells of it in sum only.
        """
        seconds = self.now() - asked.received
        if asked.held:
            self.rules.bodies.release(asked)
        replica = "" if exchange is None else exchange.replica_key
        self.metrics.ended(asked.label, model, replica, asked.grant.name, status, seconds)
        if asked.estimate is not None and exchange is not None:
            self._settle(asked, status, exchange)
        trace = "" if self.tracing is None else self.tracing.ended(asked, model, status, exchange)
        if self._access is not None and not quiet:
            who = exchange.client if exchange is not None else client
            address = "" if who is None else self.client_of(who, asked)
            self._access.add(
                access.line_of(asked, exchange, address, model, status, seconds, trace, time.time())
            )
        if self._chatty:
            log.debug(
                "%s %s %s model=%r %d %.3f s", asked.identity.decode(), asked.method.decode(), asked.label, model,
                status, seconds,
            )  # fmt: skip

    def _flush_soon(self) -> None:
        if self._access is not None:
            self.loop.call_later(ACCESS_FLUSH_S, self._access.flush)

    def _needs_key(self, asked: ClientRequest) -> bool:
        found = asked.endpoint
        if found.kind is EndpointKind.NOWHERE:
            return asked.path.startswith((b"/v1", b"/api"))
        if found.kind is EndpointKind.METRICS and self._is_from_here(asked):
            return not self._door.points_here(_said(asked)[0])
        return found.guarded

    def _options(self, asked: ClientRequest) -> Reply:
        if asked.endpoint.kind is EndpointKind.NOWHERE and asked.path != b"*":
            return errors.unknown_path(asked.path.decode("latin-1"))
        allowed = b"GET, HEAD, POST, OPTIONS" if asked.path == b"*" else asked.endpoint.allowed.encode()
        fields = b"allow: %b\r\n" % allowed
        if self.cors_fields(asked.origin):
            wanted = asked.field(b"access-control-request-headers") or b"authorization, content-type"
            fields += (
                b"access-control-allow-methods: %b\r\naccess-control-allow-headers: %b\r\n"
                b"access-control-max-age: %d\r\n" % (allowed, wanted, _PREFLIGHT_SECONDS)
            )
        return Reply(204, b"", fields)

    def _model(self, name: str) -> dict[str, object]:
        created = int(time.time() - (self.now() - self._started))
        return {"id": name, "object": "model", "created": created, "owned_by": "llmlaunch"}

    def _health(self) -> Reply:
        table = self.table
        ready = table.ready_of_expected() if table.expected else len(table.serving)
        expected = len(table.expected) or ready
        up = self.heard or bool(table.serving) or self.now() - self._started > START_GRACE_S
        up = up and not self.broken
        status = (
            "broken"
            if self.broken
            else "starting"
            if not up
            else "ok"
            if ready == expected and self.controller_up
            else "degraded"
        )
        value = {
            "status": status,
            "names_ready": ready,
            "names_expected": expected,
            "controller": "up" if self.controller_up else "down",
        }
        if self.warning:
            value["warning"] = self.warning
        return _json(200 if up else 503, value)

    def _metrics(self) -> Reply:
        self._publish()
        body = metrics.render(self.crew.boards)
        return Reply(200, body, content_type=b"text/plain; version=0.0.4; charset=utf-8")

    def _publish(self) -> None:
        """Tell the other processes, and whoever asks one of them, how it is here."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        now = self.now()
        keys = self.table.replicas.keys() | self.loads.keys()
        loads = {key: self.loads.get(key, ReplicaHealth()) for key in keys}
        now_here = metrics.Gauges(
            in_flight={key: load.in_flight for key, load in loads.items()},
            waiting={name: self.room.waiting(name) for name in self.room.names},
            breakers={key: int(load.breaker(now)) for key, load in loads.items()},
            retries_left=self.retries.level,
            connections=len(self.connections),
            body_bytes=self.rules.bodies.held,
            controller_up=self.controller_up,
            routes_revision=self.table.rev,
            cpu_seconds=used.ru_utime + used.ru_stime,
            resident_bytes=_resident_bytes(),
        )
        self.metrics.publish(now_here)

    # -- replicas

    def turn(self, name: str) -> int:
        found = self.turns[name] = self.turns.get(name, -1) + 1
        return found

    def load(self, key: str) -> ReplicaHealth:
        found = self.loads.get(key)
        if found is None:
            found = self.loads[key] = ReplicaHealth()
        return found

    def in_flight(self) -> dict[str, int]:
        return {key: load.in_flight for key, load in self.loads.items() if load.in_flight}

    def adopt(self, table: RouteTable) -> None:
        """Use ``table`` from now on."""
        before = self.table
        self.table = table
        now = self.now()
        for replica in table.replicas.values():
            load = self.load(replica.key)
            load.reported(replica.queue_length)
            if replica.key not in before.replicas:
                joins = any(name in before.serving for name in replica.names)
                load.joined(now if joins else None)
        if self.suspects:
            self.suspects.replaced(table.replicas)
        self.heard = True
        for key in [k for k, load in self.loads.items() if not load.in_flight and k not in table.replicas]:
            del self.loads[key]
        if table.serving.keys() != before.serving.keys():
            self.turns.clear()
            log.info("serving %s", ", ".join(table.names) or "nothing yet")
        draining = frozenset(r.key for r in table.replicas.values() if r.draining)
        if draining - self._draining:
            self.on_drained.set()
        self._draining = draining
        self.call_waiting()
        self._publish()
        self.begin()

    def recall(self, table: RouteTable) -> None:
        """Use ``table``, which an earlier gateway left, until the controller answers."""
        self.adopt(table)
        self.heard = False

    def freed(self, replica: RoutedReplica) -> None:
        """One of its slots is free."""
        if replica.key in self._draining and not self.load(replica.key).in_flight:
            self.on_drained.set()
        if self.room:
            self._call(replica.names)

    def call_waiting(self) -> None:
        """Slots may be free for other reasons: a replica came, or its rest is over."""
        for name in self.room.names:
            self._call((name,))

    def _call(self, names: tuple[str, ...]) -> None:
        for ticket in self.room.in_line(names):
            tried = ticket.item.tried
            replicas = self.table.serving.get(ticket.name)
            if replicas and is_full(ticket.item.among(replicas), self.loads, tried, self.now()):
                if not tried and not ticket.item.holder:
                    return
                continue  # what is free has failed this one already; the next in line may take it
            if self.room.holds(ticket):
                self.room.called(ticket)
                ticket.item.called()

    # -- suspects

    def died(self, replica: RoutedReplica, key: bytes, asked: ClientRequest, sent_at: float) -> None:
        """``replica`` died or fell silent with ``asked``. One that leaves is no victim of its requests."""
        known = self.table.replicas.get(replica.key)
        if known is None or known.draining:
            return
        now, size = self.now(), len(asked.body)
        if self.ledger is not None:
            self.hear_of_deaths()
            self.ledger.write(DeathRecord(key, size, number_of(replica.key), sent_at, now))
        self.suspects.saw(self.table.replicas)
        seconds = self.suspects.broke(key, size, replica.key, sent_at, now)
        if seconds:
            log.warning(
                "%s died or fell silent with request %s (%d bytes for %s), as another replica did before: "
                "it is refused for %.0f s",
                replica.key, asked.identity.decode(), len(asked.body), ", ".join(replica.names), seconds,
            )  # fmt: skip

    def hear_of_deaths(self) -> None:
        """Take over what the other processes met."""
        for entry in () if self.ledger is None else self.ledger.read():
            if not entry.replica:
                self.suspects.answered(entry.key)
            elif self.now() - entry.at < SUSPECTED_S:
                self.suspects.saw(self.table.replicas)
                replica = named(entry.replica, self.table.replicas)
                self.suspects.broke(entry.key, entry.size, replica, entry.sent_at, entry.at)

    def was_answered(self, key: bytes) -> None:
        """Whoever is remembered by ``key`` got a whole answer."""
        if self.suspects.answered(key) and self.ledger is not None:
            self.ledger.write(DeathRecord(key, 0, 0, 0.0, self.now()))

    def hold_back(self, exchange: Exchange) -> None:
        """``exchange`` is asked again shortly whether its turn has come."""
        if not self._held_back:
            self.loop.call_later(TRIALS_S, self._try_suspects)
        self._held_back.append(exchange)

    def let_go(self, exchange: Exchange) -> None:
        if exchange in self._held_back:
            self._held_back.remove(exchange)

    def _try_suspects(self) -> None:
        waiting, self._held_back = self._held_back, []
        age = self.suspects.age
        for exchange in sorted(waiting, key=lambda held: age(held.key)):
            exchange.try_again()

    # -- descriptors

    def _close_idle(self, most: int) -> int:
        """Close up to ``most`` connections that lie idle, the longest idle first; return how many."""
        now = self.now()
        idle = [
            (since, connection) for connection in self.connections if (since := connection.idle_since(now))
        ]
        for _, connection in nsmallest(most, idle, key=itemgetter(0)):
            connection.transport.abort()
        return min(most, len(idle)) or self.pool.drop_idle(most)

    # -- time and end

    def sweep(self) -> None:
        """About once a second: what is late, idle or changed."""
        now = self.now()
        for connection in list(self.connections):
            connection.sweep(now)
        for ticket in self.room.late(now):
            ticket.item.waited_out()
        self.call_waiting()
        self.vigil.sweep([c.serving for c in self.connections if c.serving is not None], now)
        for line in self.noise.lines(now):
            log.warning("%s", line)
        self.pool.sweep(now, set(self.table.replicas))
        if self.suspects:
            self.suspects.expire(now)
        if self.crew.size > 1:
            self._publish()
        if self.crew.own.full and not self._told_full:
            self._told_full = True
            log.warning("there is no room for more figures: new names and replicas are not counted")
        if self._keys is not None and self._keys.refresh():
            self.rules.seen.forget()

    def stop(self) -> None:
        """Take no further request on any connection; what is being answered goes on."""
        self.stopping = True
        self.begin()
        for connection in list(self.connections):
            connection.stop()

    def shut_down(self) -> None:
        """End everything now."""
        for connection in list(self.connections):
            connection.shut_down()
        self.vigil.close()
        self.pool.close()

    def close_log(self, seconds: float) -> None:
        """Write what is still to be written to the access log; give up after ``seconds``."""
        if self._access is not None:
            self._access.close(seconds)


def _json(status: int, value: object) -> Reply:
    return Reply(status, json.dumps(value).encode())


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  # a file of the kernel's, read per scrape
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _said(asked: ClientRequest) -> tuple[str, str, str]:
    """What tells browsers from other programs, and where their pages come from: see ``browsers``."""
    host, site = asked.field(b"host"), asked.field(b"sec-fetch-site")
    return host.strip().decode("latin-1"), asked.origin.decode("latin-1"), site.decode("latin-1")
