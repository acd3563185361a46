"""The controller's HTTP endpoints. Their paths and bodies are those of ``wire.py``.

Starlette rather than FastAPI: bodies are parsed into the models of ``wire.py`` here, so that every error has our envelope, and
the process starts in half the time and memory.

A handler takes the current table after whatever it had to await, and computes the next one in one step (``live_table.py``).
A request that waits (for a worker that is being probed, for a change of the table) delays no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llmlaunch.common.dispatch_methods import DEFAULT, DispatchMethod
from llmlaunch.controller import lookup, registry
from llmlaunch.controller.auth import Authorizer, Caller, check_names, checked_address
from llmlaunch.controller.fastchat import (
    FastChatProber,
    claims_nothing_more,
    is_fastchat_registration,
    with_detected_engine,
)
from llmlaunch.controller.late_workers import LateWorkerProber
from llmlaunch.controller.live_table import LiveTable
from llmlaunch.controller.request_bodies import EXCEPTION_HANDLERS, RequestRejected, number, read
from llmlaunch.controller.table import OPEN_SETTLE_S, SETTLE_S, empty, worker_from
from llmlaunch.controller.tokens import Role, key_seed
from llmlaunch.controller.wire import (
    FASTCHAT,
    Expected,
    GatewayReport,
    HeartBeat,
    RegisterWorker,
    WorkerName,
    WorkerStatus,
)
from llmlaunch.controller.worker_probe import (
    PROBE_TIMEOUT_S,
    NotListeningError,
    ProbeFailedError,
    WorkerAddress,
    WorkerProber,
    parse_address,
)

LONGEST_WAIT_S = 60.0

log = logging.getLogger(__name__)


class ModelQuery(BaseModel):
    """The body of /get_worker_address."""

    model: str


class Controller:
    """The endpoints, and the tasks that run beside them.

    ``token`` is the deployment's secret, from which all tokens are derived; "" means that there are none. A worker has
    ``probe_timeout_s`` seconds to say what it serves. ``supervised``: a supervisor is about to send the names that the
    deployment promises, and strangers get none before.
    """

    def __init__(
        self,
        dispatch: DispatchMethod = DEFAULT,
        *,
        token: str = "",
        open_registration: bool = False,
        supervised: bool = False,
        clock: Callable[[], float] = time.monotonic,
        probe_timeout_s: float = PROBE_TIMEOUT_S,
    ) -> None:
        self.epoch = secrets.token_hex(8)
        self._dispatch: DispatchMethod = dispatch
        self._assigned = 0
        self._authorizer = Authorizer(token, open_registration=open_registration)
        first = empty(
            clock(),
            OPEN_SETTLE_S if open_registration else SETTLE_S,
            guarded=bool(token),
            names_known=not (token and supervised),
        )
        self._table = LiveTable(first, clock)
        self._prober = WorkerProber(probe_timeout_s, key_seed(token) if token else "")
        self._fastchat = FastChatProber(self._prober, self._table)
        self._late = LateWorkerProber(self._prober, self._table)
        self._routes_json: tuple[int, bytes] = (-1, b"")

    def app(self) -> Starlette:
        """The ASGI application. Its lifespan runs the tasks that expire leases and probe workers."""
        post = [
            ("/register_worker", self.register_worker),
            ("/receive_heart_beat", self.receive_heart_beat),
            ("/unregister_worker", self.unregister_worker),
            ("/drain_worker", self.drain_worker),
            ("/set_expected", self.set_expected),
            ("/gateway_report", self.gateway_report),
            ("/list_models", self.list_models),
            ("/list_language_models", self.list_language_models),
            ("/list_multimodal_models", self.list_multimodal_models),
            ("/get_worker_address", self.get_worker_address),
            ("/refresh_all_workers", self.refresh_all_workers),
            ("/worker_get_status", self.worker_get_status),
        ]
        get = [
            ("/routes", self.routes),
            ("/test_connection", self.connection_test),
            ("/health", self.health),
        ]
        return Starlette(
            routes=[
                *(Route(path, handler, methods=["POST"]) for path, handler in post),
                *(Route(path, handler, methods=["GET"]) for path, handler in get),
            ],
            exception_handlers=EXCEPTION_HANDLERS,
            lifespan=self._lifespan,
        )

    def stop(self) -> None:
        """Answer everybody who polls, so that the server can end at once."""
        self._table.stop()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        work = (self._table.expire_leases(), self._fastchat.run(), self._late.run())
        tasks = [asyncio.create_task(part) for part in work]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- for workers -------------------------------------------------------------------------------------------------

    async def register_worker(self, request: Request) -> Response:
        """List a worker, after it has answered at its address, unless the supervisor vouches for it."""
        caller = self._authorizer.caller(request, Role.REPLICA)
        body = await read(request, RegisterWorker)
        address = checked_address(caller, body.worker_name)
        body = body.model_copy(update={"worker_name": str(address)})
        status = body.worker_status
        self._check_allowed(caller, str(address), () if status is None else status.model_names)
        if status is None or not (body.verified and caller.is_owner):
            try:
                own = await self._prober.status(address, caller.trusted and body.keyed)
            except NotListeningError as error:
                if not (is_fastchat_registration(body) and self._wait_until_it_listens(body, caller)):
                    raise _probe_failed(error) from error
                return JSONResponse(
                    {"registered": False, "why": f"{error}; it will be asked again until it answers"}
                )
            except ProbeFailedError as error:
                raise _probe_failed(error) from error
            body = await with_detected_engine(self._prober, body, own)
            status = _verified_status(address, body, own)
            if await request.is_disconnected():
                # Its own unregistering may have been here already; a worker that still runs registers again.
                log.info("%s disconnected before it was registered", address)
                return Response(status_code=499)
        self._check_allowed(caller, str(address), status.model_names)
        allowed = None if caller.is_owner or caller.scope is None else caller.scope.names
        worker = worker_from(body, status, self._table.clock(), trusted=caller.trusted, allowed_names=allowed)
        self._table.update(registry.register(self._table.current, worker))
        self._fastchat.stop_waiting_for(worker.name)
        log.info("%s serves %s", worker.name, ", ".join(worker.model_names))
        return JSONResponse(None)

    def _wait_until_it_listens(self, body: RegisterWorker, caller: Caller) -> bool:
        return self._fastchat.wait_for(body, trusted=caller.trusted, allowed_names=caller.names)

    async def receive_heart_beat(self, request: Request) -> Response:
        """Renew a worker's lease."""
        caller = self._authorizer.caller(request, Role.REPLICA)
        body = await read(request, HeartBeat)
        name = self._own_name(caller, body.worker_name)
        table, exist = registry.heartbeat(self._table.current, name, body.queue_length, self._table.clock())
        self._table.update(table)
        return JSONResponse({"exist": exist or self._fastchat.is_waiting_for(name)})

    async def unregister_worker(self, request: Request) -> Response:
        """Remove a worker at once."""
        caller = self._authorizer.caller(request, Role.REPLICA)
        name = self._own_name(caller, (await read(request, WorkerName)).worker_name)
        table, exist = registry.unregister(self._table.current, name)
        self._table.update(table)
        self._fastchat.stop_waiting_for(name)
        if exist:
            log.info("%s unregistered", name)
        return JSONResponse({"exist": exist})

    async def drain_worker(self, request: Request) -> Response:
        """Send a worker no new requests, and tell how many it still has."""
        caller = self._authorizer.caller(request, Role.REPLICA)
        name = self._own_name(caller, (await read(request, WorkerName)).worker_name)
        now = self._table.clock()
        table, exist = registry.drain(self._table.current, name, now)
        self._table.update(table)
        return JSONResponse({"exist": exist, "in_flight": lookup.in_flight(table, name, now)})

    async def refresh_all_workers(self, request: Request) -> Response:
        """Probe every worker that the supervisor does not vouch for, and list what each answers."""
        self._authorizer.caller(request)
        unverified = [w for w in self._table.current.workers.values() if not w.verified]
        answers = await asyncio.gather(
            *(self._prober.status(parse_address(w.name), w.keyed) for w in unverified), return_exceptions=True
        )
        table = self._table.current
        for worker, answer in zip(unverified, answers, strict=True):
            if isinstance(answer, WorkerStatus):
                table = registry.refresh(table, worker.name, answer)
            elif not isinstance(answer, ProbeFailedError):
                raise answer
            else:
                log.warning("%s", answer)
                if not worker.check_heart_beat:  # no lease will run out for it
                    table, _ = registry.unregister(table, worker.name)
        self._table.update(table)
        return JSONResponse(None)

    # -- for the supervisor and gateways -------------------------------------------------------------------------------

    async def set_expected(self, request: Request) -> Response:
        """Take the served names that the manifest promises."""
        self._authorizer.trusted_caller(request)
        names = (await read(request, Expected)).names
        self._table.update(registry.expect(self._table.current, names))
        return JSONResponse(None)

    async def gateway_report(self, request: Request) -> Response:
        """Take the requests that one gateway has in flight."""
        self._authorizer.trusted_caller(request, Role.GATEWAY)
        body = await read(request, GatewayReport)
        self._table.update(
            registry.report(self._table.current, body.gateway, body.in_flight, self._table.clock())
        )
        return JSONResponse(None)

    async def routes(self, request: Request) -> Response:
        """The route table, held back until it is newer than the caller's or the caller's wait is over."""
        self._authorizer.caller(request, Role.GATEWAY)
        since = number(request, "since", -1, int)
        wait_s = min(number(request, "wait", 0.0, float), LONGEST_WAIT_S)
        if request.query_params.get("epoch", "") == self.epoch:
            await self._table.wait_for_newer(since, wait_s)
        if self._routes_json[0] != self._table.current.rev:
            body = lookup.routes(self._table.current, self.epoch, self._dispatch).model_dump_json().encode()
            self._routes_json = (self._table.current.rev, body)
        return Response(self._routes_json[1], media_type="application/json")

    # -- for FastChat's clients ----------------------------------------------------------------------------------------

    async def list_models(self, request: Request) -> Response:
        """Names that somebody serves now."""
        self._authorizer.check_reader(request)
        return JSONResponse({"models": lookup.models(self._table.current)})

    async def list_language_models(self, request: Request) -> Response:
        """Names of models that are not multimodal."""
        self._authorizer.check_reader(request)
        return JSONResponse({"models": lookup.models(self._table.current, multimodal=False)})

    async def list_multimodal_models(self, request: Request) -> Response:
        """Names of multimodal models."""
        self._authorizer.check_reader(request)
        return JSONResponse({"models": lookup.models(self._table.current, multimodal=True)})

    async def get_worker_address(self, request: Request) -> Response:
        """The address of a worker for one request for a model."""
        self._authorizer.check_reader(request)
        model = (await read(request, ModelQuery)).model
        now = self._table.clock()
        table, address = lookup.assign(
            self._table.current, model, self._dispatch, random.random(), now, self._assigned
        )
        self._assigned += 1
        self._table.update(table)
        return JSONResponse({"address": address})

    async def worker_get_status(self, request: Request) -> Response:
        """All workers together, as if they were one."""
        self._authorizer.check_reader(request)
        workers = self._table.current.workers.values()
        return JSONResponse(
            {
                "model_names": lookup.models(self._table.current),
                "speed": sum(w.speed for w in workers),
                "queue_length": sum(w.queue_length for w in workers),
            }
        )

    async def connection_test(self, _: Request) -> Response:
        """Whether a controller is here at all."""
        return JSONResponse("success")

    async def health(self, _: Request) -> Response:
        """Counts of workers and models, for people and probes."""
        table = self._table.current
        return JSONResponse(
            {
                "status": "ok",
                "workers": len(table.workers),
                "models": len(lookup.models(table)),
                "expected": len(table.expected),
                "settled": table.settled,
                "rev": table.rev,
            }
        )

    # -- authorization -------------------------------------------------------------------------------------------------

    def _check_allowed(self, caller: Caller, name: str, model_names: Sequence[str] = ()) -> None:
        check_names(caller, model_names)
        why = registry.rejection_reason(self._table.current, name, model_names, trusted=caller.trusted)
        if why:
            raise RequestRejected(403, why, code="forbidden")

    def _own_name(self, caller: Caller, text: str) -> str:
        name = str(checked_address(caller, text))
        self._check_allowed(caller, name)
        return name


def _probe_failed(error: ProbeFailedError) -> RequestRejected:
    return RequestRejected(422, f"registration refused: {error}", param="worker_name")


def _verified_status(address: WorkerAddress, body: RegisterWorker, own: WorkerStatus) -> WorkerStatus:
    """The status under which to list a worker that registers as ``body`` and answers with its ``own``.

    Raises RequestRejected when the two name different models.
    """
    claimed = body.worker_status
    if claimed is None or (body.engine == FASTCHAT and claims_nothing_more(body, own)):
        return own
    if set(claimed.model_names) != set(own.model_names):
        raise RequestRejected(
            422,
            f"registration refused: {address} serves {_listed(own.model_names)}, "
            f"but its registration says {_listed(claimed.model_names)}",
            param="worker_status.model_names",
        )
    return claimed


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (" …" if len(names) > 8 else "")
