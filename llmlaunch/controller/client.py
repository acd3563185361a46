"""A client of the controller, and the loop that keeps a worker registered."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from llmlaunch.common import backoff
from llmlaunch.common.heartbeat import HEARTBEAT_S
from llmlaunch.controller.wire import (
    Expected,
    GatewayReport,
    HeartBeat,
    RegisterWorker,
    RoutesResponse,
    WorkerName,
)
from llmlaunch.errors import LlmlaunchError, UsageError

log = logging.getLogger(__name__)

RETRY_FIRST_S = 0.1
RETRY_MOST_S = 2.0
"""Seconds between two attempts to reach the controller, the first pause and the longest; pauses double."""
UNREGISTER_TIMEOUT_S = 2.0
"""Seconds that unregistering may take: a worker that shuts down does not wait longer for its controller."""

Value = TypeVar("Value")


class ControllerError(LlmlaunchError):
    """A request to the controller failed."""

    code = "controller"


class ControllerUnreachable(ControllerError):
    """No answer: nothing listens there, the connection was closed, or the request timed out."""

    code = "controller_unreachable"


class ControllerRefused(ControllerError):
    """The controller answered with an error. ``status`` is the HTTP status."""

    code = "controller_refused"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ControllerClient:
    """The calls of ``controller/wire.py``.

    Every call raises :class:`ControllerUnreachable` or :class:`ControllerRefused`, within ``timeout_s`` seconds
    (:meth:`routes`: that many beyond its wait). Proxies from the environment are not used: the controller is close by.
    """

    def __init__(self, base_url: str, token: str = "", timeout_s: float = 5.0) -> None:
        url = base_url.rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise UsageError(
                f"controller address {base_url!r} is not a valid URL",
                hint="for example http://127.0.0.1:21001",
            )
        self.base_url = url
        self._timeout_s = timeout_s
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Loading the CA certificates for https takes longer than registering.
        secure = url.startswith("https://")
        self._http = httpx.AsyncClient(headers=headers, timeout=timeout_s, trust_env=False, verify=secure)

    async def register(self, registration: RegisterWorker) -> None:
        """List the worker, or replace what is listed at its address."""
        await self._post("/register_worker", registration)

    async def heartbeat(self, worker_name: str, queue_length: int) -> bool:
        """Renew the worker's lease. False: the controller does not know it, so it has to register again."""
        beat = HeartBeat(worker_name=worker_name, queue_length=queue_length)
        return await self._field("/receive_heart_beat", beat, "exist", bool)

    async def unregister(self, worker_name: str) -> None:
        """Remove the worker; one that is not listed is no error."""
        await self._post("/unregister_worker", WorkerName(worker_name=worker_name))

    async def drain(self, worker_name: str) -> int:
        """Send the worker no new requests; return how many it still has. An unknown worker has 0."""
        return await self._field("/drain_worker", WorkerName(worker_name=worker_name), "in_flight", int)

    async def set_expected(self, names: Sequence[str]) -> None:
        """Set the served names that the manifest promises."""
        await self._post("/set_expected", Expected(names=list(names)))

    async def report(self, gateway: str, in_flight: dict[str, int]) -> None:
        """Tell how many requests ``gateway`` has in flight, by worker name."""
        await self._post("/gateway_report", GatewayReport(gateway=gateway, in_flight=in_flight))

    async def routes(self, since: int = -1, epoch: str = "", wait_s: float = 0.0) -> RoutesResponse:
        """The route table as soon as it is newer than ``since`` of ``epoch``, or after ``wait_s`` seconds."""
        params = {"since": str(since), "epoch": epoch, "wait": str(wait_s)}
        answer = await self._send("GET", "/routes", params=params, timeout=self._timeout_s + wait_s)
        return self._parsed("/routes", lambda: RoutesResponse.model_validate(answer))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _post(self, path: str, body: BaseModel) -> Any:
        return await self._send("POST", path, json=body.model_dump(mode="json"))

    async def _field(self, path: str, body: BaseModel, field: str, kind: Callable[[Any], Value]) -> Value:
        answer = await self._post(path, body)
        return self._parsed(path, lambda: kind(answer[field]))

    async def _send(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = await self._http.request(method, self.base_url + path, **arguments)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            detail = str(error) or type(error).__name__
            raise ControllerUnreachable(f"controller at {self.base_url} does not answer: {detail}") from error
        if response.status_code != 200:
            raise ControllerRefused(response.status_code, self._reason(path, response))
        return self._parsed(path, response.json)

    def _reason(self, path: str, response: httpx.Response) -> str:
        try:
            reason = str(response.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            reason = response.text[:200]
        return f"controller at {self.base_url} refused {path} ({response.status_code}): {reason}"

    def _parsed(self, path: str, read: Callable[[], Value]) -> Value:
        try:
            return read()
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise ControllerRefused(502, f"{self.base_url}{path} is not a controller") from error


async def keep_registered(
    client: ControllerClient,
    registration: Callable[[], RegisterWorker],
    queue_length: Callable[[], int],
    *,
    heartbeat_s: float = HEARTBEAT_S,
    on_state: Callable[[bool, str], None],
) -> None:
    """Keep a worker known to the controller until cancelled; then unregister it.

    Waits for a controller that is not up yet, registers, sends heartbeats, and registers again when the controller no longer
    knows the worker. ``registration`` is called for each attempt to register, ``queue_length`` for
    each heartbeat. ``on_state(registered, why)`` is called once per change, with a message for the log. A worker that
    loses its controller goes on serving: gateways keep the routes they know.

    Call it once the worker's port is bound and answers /worker_get_status: the controller may probe it.
    """
    state = _Registration(client, registration, queue_length, on_state)
    failures = 0
    try:
        while True:
            try:
                register_again = await state.beat()
            except ControllerError as error:
                state.report(False, error.message)
                failures += 1
                pause = backoff.delay(failures, RETRY_FIRST_S, min(RETRY_MOST_S, heartbeat_s))
                await asyncio.sleep(backoff.equal_jitter(pause, random.random()))
                continue
            failures = 0
            if not register_again:
                await asyncio.sleep(heartbeat_s)
    finally:
        await state.unregister()


class _Registration:
    """What :func:`keep_registered` knows of its worker."""

    def __init__(
        self,
        client: ControllerClient,
        registration: Callable[[], RegisterWorker],
        queue_length: Callable[[], int],
        on_state: Callable[[bool, str], None],
    ) -> None:
        self._client = client
        self._registration = registration
        self._queue_length = queue_length
        self._on_state = on_state
        self._name = ""
        self._known = False
        self._last_state: tuple[bool, str] | None = None

    async def beat(self) -> bool:
        """Register, or send a heartbeat. True: the controller no longer knows the worker, so call again at once."""
        if self._known:
            self._known = await self._client.heartbeat(self._name, self._queue_length())
            if self._known:
                self.report(True, f"registered with the controller at {self._client.base_url}")
            else:
                self.report(False, "the controller no longer knows this worker; registering again")
            return not self._known
        request = self._registration()
        self._name = request.worker_name  # before the call: a cancelled one may have arrived
        await self._client.register(request)
        self._known = True
        self.report(True, f"registered with the controller at {self._client.base_url}")
        return False

    def report(self, registered: bool, why: str) -> None:
        if self._last_state is None or self._last_state[0] != registered:
            self._on_state(registered, why)
        self._last_state = (registered, why)

    async def unregister(self) -> None:
        if not self._name:
            return
        try:
            await _with_timeout(self._client.unregister(self._name), UNREGISTER_TIMEOUT_S)
        except (ControllerError, TimeoutError) as error:
            log.info("could not unregister: %s", error or "no answer in time")


async def _with_timeout(call: Awaitable[None], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await call
