"""Composes one gateway process from its parts; each part has a module of its own.

::

    ClientConnection ─► AccessControl   before a body is read: keys, origins, methods
                     ─► RequestHandler ─► Endpoints     what the gateway answers itself
                                       ─► Exchange ─► Router               which replica, and when
                                                   ─► ReplicaConnections   a connection to it
                        RequestCloser ◄─ RequestOutcome     limits, metrics, access log, traces
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from heapq import nsmallest
from operator import itemgetter
from typing import Any

from llmlaunch.common.browser_guard import Door
from llmlaunch.gateway.access_control import AccessControl
from llmlaunch.gateway.client_address import ClientAddresses, Network
from llmlaunch.gateway.endpoints import Endpoints
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.exchange.exchange import Exchange, ExchangeContext
from llmlaunch.gateway.exchange.replica_connections import ReplicaConnections
from llmlaunch.gateway.exchange.silence_probe import SilenceProbe
from llmlaunch.gateway.http1.body_memory import BodyMemory
from llmlaunch.gateway.http1.client_connection import ClientConnection
from llmlaunch.gateway.http1.head_cache import HeadCache
from llmlaunch.gateway.http1.open_files import OpenFiles
from llmlaunch.gateway.http1.request_parser import ParserRules
from llmlaunch.gateway.limits.admission import Admission
from llmlaunch.gateway.limits.keys import KeyRing
from llmlaunch.gateway.multiprocess.shared_counters import ProcessGroup, single_process
from llmlaunch.gateway.multiprocess.shares import share
from llmlaunch.gateway.observe import metrics
from llmlaunch.gateway.observe.access_log import AccessLog
from llmlaunch.gateway.observe.metrics import GatewayMetrics
from llmlaunch.gateway.observe.recorder import RequestRecorder
from llmlaunch.gateway.observe.tracing import Tracing
from llmlaunch.gateway.paths import ApiEndpoint, EndpointKind
from llmlaunch.gateway.request import ClientRequest
from llmlaunch.gateway.request_handler import RequestCloser, RequestHandler
from llmlaunch.gateway.routing.health.silence_watch import SilenceWatch
from llmlaunch.gateway.routing.route_table import RoutedReplica
from llmlaunch.gateway.routing.router import Router

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 << 20
MAX_BODIES_BYTES = 256 << 20
FIRST_TABLE_S = 2.0
"""Seconds that requests wait for the first route table before they are answered without one."""
ACCESS_FLUSH_S = 0.1


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """Settings of one gateway."""

    max_body_bytes: int = MAX_BODY_BYTES
    max_bodies_bytes: int = MAX_BODIES_BYTES
    """Bytes of all request bodies together, in all processes. Each process has room for at least one body of the
    largest size."""
    door: Door = field(default_factory=Door)
    """Which hosts and origins are accepted. Pages from these origins may read responses."""
    trusted_proxies: tuple[Network, ...] = ()
    """The proxies whose X-Forwarded-For is trusted."""
    access_log: int | None = None
    """The file descriptor of the access log, which gets a JSON line for every request; None: no access log."""
    ollama: bool = False
    """Ollama's API is answered too."""


class Gateway:
    """One gateway process. Only its own event loop may call it. Implements ``client_connection.Application``."""

    def __init__(
        self,
        options: GatewayOptions,
        keys: KeyRing | None = None,
        group: ProcessGroup | None = None,
        tracing: Tracing | None = None,
        worker_keys: str = "",
    ) -> None:
        """``keys``: None: no API key is needed. ``worker_keys``: the seed from which the workers' API keys are derived."""
        loop = asyncio.get_running_loop()
        self.now = time.monotonic  # uvloop's own clock does not advance within one turn of the loop
        self.identity = f"gateway-{os.urandom(6).hex()}"
        self.group = group or single_process()
        self.connections: set[ClientConnection] = set()
        self.waiting_for_routes: set[ClientConnection] | None = set()
        self.stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._id_prefix = os.urandom(5).hex()
        self._id_count = 0
        self._date = (0, b"")
        self._warned_full = False

        self._metrics = GatewayMetrics(self.group.own)
        self.router = Router(
            self.now,
            self.group.size,
            self.group.ledger,
            on_retry=lambda kind: self._metrics.retried(kind.value),
            on_routes=self._new_routes,
        )
        self.files = OpenFiles(self._close_idle, self.now)
        self.replicas = ReplicaConnections(self.files, worker_keys)
        self._silence_watch = SilenceWatch(self.router, self.now, self._probe)

        addresses = ClientAddresses(options.trusted_proxies)
        more, ollama = _ollama(self.router, self.now) if options.ollama else ({}, None)
        self._access = AccessControl(options.door, keys, addresses, more)
        self.cors_fields = self._access.cors_fields
        bodies = BodyMemory(max(share(options.max_bodies_bytes, self.group.size), options.max_body_bytes))
        self.rules = ParserRules(
            self._access.screen, self.new_identity, self.now, options.max_body_bytes, bodies=bodies
        )
        self.surplus_rules = replace(self.rules, screen=self._access.screen_surplus, head_cache=HeadCache())

        access_log = None if options.access_log is None else AccessLog(options.access_log, self._flush_soon)
        self._access_log = access_log
        self._recorder = RequestRecorder(self._metrics, access_log, tracing, addresses.of)
        admission = Admission(self._metrics.was_limited)
        self.closer = RequestCloser(bodies, admission, self._recorder)
        self.exchanges = ExchangeContext(
            router=self.router,
            connections=self.replicas,
            metrics=self._metrics,
            tracing=tracing,
            cors_fields=self._access.cors_fields,
            now=self.now,
            spawn=self._spawn,
            ended=self.closer.ended,
        )
        self.endpoints = Endpoints(self.router, self.now, self._metrics_page, ollama)
        self._handler = RequestHandler(self.exchanges, self.endpoints, admission, addresses, self.closer)
        self.respond = self._handler.respond
        loop.call_later(FIRST_TABLE_S, self.stop_waiting_for_routes)
        self._publish()  # a process without a route table must count when the oldest revision is reported

    # -- client_connection.Application

    def waits_for_routes(self, request: ClientRequest) -> bool:
        """Whether ``request`` has to wait for the first route table, which usually comes moments after the start."""
        if self.waiting_for_routes is None or request.reply is not None:
            return False
        return request.endpoint.kind is not EndpointKind.METRICS

    def date(self) -> bytes:
        """The value of ``Date``. It is formatted once a second."""
        second = int(time.time())
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return self._date[1]

    # -- small services

    def new_identity(self) -> bytes:
        """A new x-request-id, unique among all gateways."""
        self._id_count += 1
        return b"req-%b%x" % (self._id_prefix.encode(), self._id_count)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _probe(self, watch: SilenceWatch, replica: RoutedReplica, path: bytes, model: str) -> SilenceProbe:
        return SilenceProbe(self.replicas, self.new_identity, watch, replica, path, model)

    def _close_idle(self, most: int) -> int:
        """Close up to ``most`` idle connections, the longest idle first; return how many."""
        now = self.now()
        idle = [
            (since, connection) for connection in self.connections if (since := connection.idle_since(now))
        ]
        for _, connection in nsmallest(most, idle, key=itemgetter(0)):
            connection.transport.abort()
        return min(most, len(idle)) or self.replicas.pool.drop_idle(most)

    def _flush_soon(self) -> None:
        if self._access_log is not None:
            asyncio.get_running_loop().call_later(ACCESS_FLUSH_S, self._access_log.flush)

    # -- metrics

    def _metrics_page(self) -> bytes:
        self._publish()
        return metrics.render(self.group.counters)

    def _publish(self) -> None:
        """Write this process's gauges to the shared counters, where every process can read them for /metrics."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        router, now = self.router, self.now()
        keys = router.table.replicas.keys() | router.health_of.keys()
        health = {key: router.health_of.get(key) for key in keys}
        gauges = metrics.Gauges(
            in_flight={key: found.in_flight if found else 0 for key, found in health.items()},
            waiting={name: router.queue.waiting(name) for name in router.queue.names},
            breakers={key: int(found.breaker(now)) if found else 0 for key, found in health.items()},
            retries_left=router.retries.level,
            connections=len(self.connections),
            body_bytes=self.rules.bodies.reserved,
            controller_up=router.controller_up,
            routes_revision=router.table.rev,
            cpu_seconds=used.ru_utime + used.ru_stime,
            resident_bytes=_resident_bytes(),
        )
        self._metrics.publish(gauges)

    # -- time and end

    def _new_routes(self) -> None:
        self._publish()
        self.stop_waiting_for_routes()

    def stop_waiting_for_routes(self) -> None:
        """Answer the requests that waited for the first route table: it has arrived, or they have waited long enough."""
        waiting, self.waiting_for_routes = self.waiting_for_routes, None
        for connection in waiting or ():
            connection.answer_ready()

    def sweep(self) -> None:
        """Enforce timeouts, close idle connections, reload keys and publish metrics. Called about once a second."""
        now = self.now()
        for connection in list(self.connections):
            connection.sweep(now)
        self.router.sweep(now)
        responders = [connection.serving for connection in self.connections]
        exchanges = [one for one in responders if isinstance(one, Exchange)]
        for exchange in exchanges:
            exchange.keep_alive(now)
        self._silence_watch.sweep(exchanges, now)
        for line in self._handler.failed_keys.lines(now):
            log.warning("%s", line)
        self.replicas.sweep(now, set(self.router.table.replicas))
        self.router.trials.expire(now)
        if self.group.size > 1:
            self._publish()
        if self.group.own.full and not self._warned_full:
            self._warned_full = True
            log.warning("the table of metrics is full: new names and replicas are not counted")
        if self._access.refresh():
            self.rules.head_cache.clear()

    def stop(self) -> None:
        """Accept no further requests. Those that are being answered go on."""
        self.stopping = self.exchanges.stopping = True
        self.stop_waiting_for_routes()
        for connection in list(self.connections):
            connection.stop()

    def shut_down(self) -> None:
        """The grace period is over: end all requests and close all connections."""
        for connection in list(self.connections):
            connection.shut_down()
        self._silence_watch.close()
        self.replicas.pool.close()

    def close_log(self, seconds: float) -> None:
        """Write the rest of the access log; give up after ``seconds``."""
        self._recorder.close(seconds)


def _ollama(
    router: Router, now: Callable[[], float]
) -> tuple[Mapping[bytes, ApiEndpoint], Callable[[ClientRequest], Reply]]:
    """Ollama's endpoints, and what answers those that need no replica. Imported here: few gateways have them."""
    from llmlaunch.gateway.ollama.local_endpoints import OllamaEndpoints
    from llmlaunch.gateway.ollama.paths import endpoints
    from llmlaunch.gateway.ollama.timing import Clocks

    return endpoints(Clocks(now, time.time)), OllamaEndpoints(router, time.time()).answer


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  # a file of the kernel's, read per scrape
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
