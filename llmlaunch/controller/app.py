"""The controller's HTTP side: messages in, table out. Endpoints and bodies are those of ``wire.py``.

Starlette rather than FastAPI: bodies are read into the wire's own models here, so that every error is an envelope of
ours, and the process starts in half the time and memory.

A handler takes the current table after whatever it had to await, and computes the next one in one step (``live_table.py``).
Nothing that waits (a worker that is asked, a gateway that polls) is held while another is answered.
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
from llmlaunch.controller.auth import Caller, Callers, address_for, names_for
from llmlaunch.controller.fastchat import FastChatWorkers, accepted, is_form, recognised
from llmlaunch.controller.grants import Role, key_seed
from llmlaunch.controller.late_heartbeats import LateWorkers
from llmlaunch.controller.live_table import LiveTable
from llmlaunch.controller.request_bodies import EXCEPTION_HANDLERS, RefusedBody, number, read
from llmlaunch.controller.table import OPEN_SETTLE_S, SETTLE_S, empty, worker_from
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
    ASK_S,
    Asker,
    NobodyThereError,
    NoStatusError,
    WorkerAddress,
    parse_address,
)

LONGEST_WAIT_S = 60.0

log = logging.getLogger(__name__)


class ModelQuery(BaseModel):
    """The body of /get_worker_address."""

    model: str


class Controller:
    """The table and those who wait for it to change.

    ``token`` is the secret that all tokens are made of, "" means that there is none; a worker has ``ask_s`` seconds to say
    what it serves. ``supervised``: somebody is about to say which names the deployment promises.
    """

    def __init__(
        self,
        dispatch: DispatchMethod = DEFAULT,
        *,
        token: str = "",
        open_registration: bool = False,
        supervised: bool = False,
        clock: Callable[[], float] = time.monotonic,
        ask_s: float = ASK_S,
    ) -> None:
        self.epoch = secrets.token_hex(8)
        self._dispatch: DispatchMethod = dispatch
        self._assigned = 0
        self._callers = Callers(token, open_registration=open_registration)
        first = empty(
            clock(),
            OPEN_SETTLE_S if open_registration else SETTLE_S,
            guarded=bool(token),
            names_known=not (token and supervised),
        )
        self._table = LiveTable(first, clock)
        self._asker = Asker(ask_s, key_seed(token) if token else "")
        self._fastchat = FastChatWorkers(self._asker, self._table)
        self._late = LateWorkers(self._asker, self._table)
        self._routes_json: tuple[int, bytes] = (-1, b"")

    def app(self) -> Starlette:
        """The ASGI application; its lifespan runs the clock that expires leases."""
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
        """Let go of everybody who polls, so that the server can end at once."""
        self._table.stop()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        work = (self._table.expire_leases(), self._fastchat.run(), self._late.run())
        tasks = [asyncio.create_task(part) for part in work]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what workers say --------------------------------------------------------------------------------------------

    async def register_worker(self, request: Request) -> Response:
        caller = self._callers.caller(request, Role.REPLICA)
        body = await read(request, RegisterWorker)
        address = address_for(caller, body.worker_name)
        body = body.model_copy(update={"worker_name": str(address)})
        status = body.worker_status
        self._guard(caller, str(address), () if status is None else status.model_names)
        if status is None or not (body.verified and caller.is_owner):
            try:
                own = await self._asker.status(address, caller.trusted and body.keyed)
            except NobodyThereError as error:
                if not (is_form(body) and self._await(body, caller)):
                    raise _unverified(error) from error
                return JSONResponse(
                    {"registered": False, "why": f"{error}; it will be asked again until it answers"}
                )
            except NoStatusError as error:
                raise _unverified(error) from error
            body = await recognised(self._asker, body, own)
            status = _believable(address, body, own)
            if await request.is_disconnected():
                # Its own unregistering may have been here already; a worker that still runs registers again.
                log.info("%s disconnected before it was registered", address)
                return Response(status_code=499)
        self._guard(caller, str(address), status.model_names)
        granted = None if caller.is_owner or caller.grant is None else caller.grant.names
        worker = worker_from(body, status, self._table.clock(), trusted=caller.trusted, granted=granted)
        self._table.update(registry.register(self._table.current, worker))
        self._fastchat.arrived(worker.name)
        log.info("%s serves %s", worker.name, ", ".join(worker.model_names))
        return JSONResponse(None)

    def _await(self, body: RegisterWorker, caller: Caller) -> bool:
        return self._fastchat.wait_for(body, trusted=caller.trusted, granted=caller.names)

    async def receive_heart_beat(self, request: Request) -> Response:
        caller = self._callers.caller(request, Role.REPLICA)
        body = await read(request, HeartBeat)
        name = self._own_name(caller, body.worker_name)
        table, exist = registry.heartbeat(self._table.current, name, body.queue_length, self._table.clock())
        self._table.update(table)
        return JSONResponse({"exist": exist or self._fastchat.awaits(name)})

    async def unregister_worker(self, request: Request) -> Response:
        caller = self._callers.caller(request, Role.REPLICA)
        name = self._own_name(caller, (await read(request, WorkerName)).worker_name)
        table, exist = registry.unregister(self._table.current, name)
        self._table.update(table)
        self._fastchat.arrived(name)
        if exist:
            log.info("%s unregistered", name)
        return JSONResponse({"exist": exist})

    async def drain_worker(self, request: Request) -> Response:
        caller = self._callers.caller(request, Role.REPLICA)
        name = self._own_name(caller, (await read(request, WorkerName)).worker_name)
        now = self._table.clock()
        table, exist = registry.drain(self._table.current, name, now)
        self._table.update(table)
        return JSONResponse({"exist": exist, "in_flight": lookup.in_flight(table, name, now)})

    async def refresh_all_workers(self, request: Request) -> Response:
        self._callers.caller(request)
        asked = [w for w in self._table.current.workers.values() if not w.verified]
        answers = await asyncio.gather(
            *(self._asker.status(parse_address(w.name), w.keyed) for w in asked), return_exceptions=True
        )
        table = self._table.current
        for worker, answer in zip(asked, answers, strict=True):
            if isinstance(answer, WorkerStatus):
                table = registry.refresh(table, worker.name, answer)
            elif not isinstance(answer, NoStatusError):
                raise answer
            else:
                log.warning("%s", answer)
                if not worker.check_heart_beat:  # no lease will run out for it
                    table, _ = registry.unregister(table, worker.name)
        self._table.update(table)
        return JSONResponse(None)

    # -- what the supervisor and gateways say and ask ------------------------------------------------------------------

    async def set_expected(self, request: Request) -> Response:
        self._callers.own(request)
        names = (await read(request, Expected)).names
        self._table.update(registry.expect(self._table.current, names))
        return JSONResponse(None)

    async def gateway_report(self, request: Request) -> Response:
        self._callers.own(request, Role.GATEWAY)
        body = await read(request, GatewayReport)
        self._table.update(
            registry.report(self._table.current, body.gateway, body.in_flight, self._table.clock())
        )
        return JSONResponse(None)

    async def routes(self, request: Request) -> Response:
        self._callers.caller(request, Role.GATEWAY)
        since = number(request, "since", -1, int)
        wait_s = min(number(request, "wait", 0.0, float), LONGEST_WAIT_S)
        if request.query_params.get("epoch", "") == self.epoch:
            await self._table.wait_for_newer(since, wait_s)
        if self._routes_json[0] != self._table.current.rev:
            body = lookup.routes(self._table.current, self.epoch, self._dispatch).model_dump_json().encode()
            self._routes_json = (self._table.current.rev, body)
        return Response(self._routes_json[1], media_type="application/json")

    # -- what FastChat's clients ask -----------------------------------------------------------------------------------

    async def list_models(self, request: Request) -> Response:
        self._callers.reader(request)
        return JSONResponse({"models": lookup.models(self._table.current)})

    async def list_language_models(self, request: Request) -> Response:
        self._callers.reader(request)
        return JSONResponse({"models": lookup.models(self._table.current, multimodal=False)})

    async def list_multimodal_models(self, request: Request) -> Response:
        self._callers.reader(request)
        return JSONResponse({"models": lookup.models(self._table.current, multimodal=True)})

    async def get_worker_address(self, request: Request) -> Response:
        self._callers.reader(request)
        model = (await read(request, ModelQuery)).model
        now = self._table.clock()
        table, address = lookup.assign(
            self._table.current, model, self._dispatch, random.random(), now, self._assigned
        )
        self._assigned += 1
        self._table.update(table)
        return JSONResponse({"address": address})

    async def worker_get_status(self, request: Request) -> Response:
        self._callers.reader(request)
        workers = self._table.current.workers.values()
        return JSONResponse(
            {
                "model_names": lookup.models(self._table.current),
                "speed": sum(w.speed for w in workers),
                "queue_length": sum(w.queue_length for w in workers),
            }
        )

    async def connection_test(self, _: Request) -> Response:
        return JSONResponse("success")

    async def health(self, _: Request) -> Response:
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

    # -- who may ---------------------------------------------------------------------------------------------------

    def _guard(self, caller: Caller, name: str, model_names: Sequence[str] = ()) -> None:
        names_for(caller, model_names)
        why = registry.refusal(self._table.current, name, model_names, trusted=caller.trusted)
        if why:
            raise RefusedBody(403, why, code="forbidden")

    def _own_name(self, caller: Caller, text: str) -> str:
        name = str(address_for(caller, text))
        self._guard(caller, name)
        return name


def _unverified(error: NoStatusError) -> RefusedBody:
    return RefusedBody(422, f"registration refused: {error}", param="worker_name")


def _believable(address: WorkerAddress, body: RegisterWorker, own: WorkerStatus) -> WorkerStatus:
    """What is to be listed of a worker that claims one status and answers with its ``own``. Raises Refused."""
    claimed = body.worker_status
    if claimed is None or (body.engine == FASTCHAT and accepted(body, own)):
        return own
    if set(claimed.model_names) != set(own.model_names):
        raise RefusedBody(
            422,
            f"registration refused: {address} serves {_words(own.model_names)}, "
            f"but its registration says {_words(claimed.model_names)}",
            param="worker_status.model_names",
        )
    return claimed


def _words(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (" …" if len(names) > 8 else "")
