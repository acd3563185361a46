"""The supervisor's HTTP interface. ``control/types.py`` has a table of its endpoints."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from llmlaunch import __version__
from llmlaunch.control import codec
from llmlaunch.control.types import About, SupervisorStatus
from llmlaunch.errors import ControlError, LlmlaunchError
from llmlaunch.planning.codec import plan_from_json, spec_to_json
from llmlaunch.planning.types import Plan
from llmlaunch.supervision.core.types import Verb
from llmlaunch.supervision.effects import ProcessEffects
from llmlaunch.supervision.journal import Journal
from llmlaunch.supervision.loop import Supervisor

_STATUS_BY_CODE = {"not_found": 404, "control": 409}
_VERBS = {"start": Verb.START, "stop": Verb.STOP, "restart": Verb.RESTART}


class JsonResponse(Response):
    """JSON in plain ASCII. Paths may contain bytes that are not UTF-8, and no response may fail because of one."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """JSON without spaces."""
        return json.dumps(content, separators=(",", ":")).encode()


class BadRequestError(LlmlaunchError):
    """A request that is malformed, or for another deployment."""

    code = "bad_request"


class DaemonProtocol(Protocol):
    """What the interface needs of the daemon."""

    supervisor: Supervisor
    effects: ProcessEffects
    journal: Journal
    status: SupervisorStatus

    def stop(self, force: bool = False) -> None:
        """Shut down; a second call, or ``force``, kills."""


def build(host: DaemonProtocol) -> Starlette:
    """The application. Every error is {"error": {"code", "message", "hint"}} with a fitting status."""
    routes = _Routes(host)
    return Starlette(
        routes=[
            Route("/about", routes.about, methods=["GET"]),
            Route("/status", routes.status, methods=["GET"]),
            Route("/specs", routes.specs, methods=["GET"]),
            Route("/apply", routes.apply, methods=["POST"]),
            Route("/command", routes.command, methods=["POST"]),
            Route("/shutdown", routes.shutdown, methods=["POST"]),
            Route("/events", routes.events, methods=["GET"]),
        ],
        exception_handlers={LlmlaunchError: _refuse, HTTPException: _no_route, Exception: _broken},
    )


class _Routes:
    def __init__(self, host: DaemonProtocol) -> None:
        self._host = host

    async def about(self, request: Request) -> Response:
        plan = self._host.supervisor.plan
        return JsonResponse(codec.about_to_json(About(plan.deployment, plan.manifest_path, __version__)))

    async def status(self, request: Request) -> Response:
        host = self._host
        supervisor = host.supervisor
        gpus = any(slot.spec.gpus for slot in supervisor.slots.values()) or bool(supervisor.plan.gpus)
        inventory = await host.effects.vram.inventory() if gpus else None
        used = await host.effects.vram.used(supervisor.slots) if gpus else {}
        report = host.journal.report(
            supervisor.plan, supervisor.slots, host.status, used, inventory, supervisor.stopping
        )
        return JsonResponse(codec.status_to_json(report))

    async def specs(self, request: Request) -> Response:
        slots = self._host.supervisor.slots
        specs = [spec_to_json(slot.successor or slot.spec) for slot in slots.values()]
        phases = {name: slot.record.phase.value for name, slot in slots.items()}
        return JsonResponse({"processes": specs, "phases": phases})

    async def apply(self, request: Request) -> Response:
        body = await _body(request)
        plan = plan_from_json(body.get("plan"))
        _check(plan, self._host.supervisor.plan.deployment)
        result = await self._host.supervisor.apply(
            plan, _flag(body, "restart_down", True), _environment(body.get("environment"))
        )
        return JsonResponse(codec.apply_result_to_json(result))

    async def command(self, request: Request) -> Response:
        body = await _body(request)
        verb = _VERBS.get(body["verb"]) if isinstance(body.get("verb"), str) else None
        if verb is None:
            raise BadRequestError(
                f"unknown verb {body.get('verb')!r}", hint=f"expected one of {', '.join(_VERBS)}"
            )
        names = body.get("names")
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise BadRequestError("names must be a list of at least one component")
        done = await self._host.supervisor.command(verb, tuple(dict.fromkeys(names)))
        return JsonResponse({"names": done})

    async def shutdown(self, request: Request) -> Response:
        self._host.stop(_flag(await _body(request), "force", False))
        return JsonResponse({})

    async def events(self, request: Request) -> Response:
        text = request.query_params.get("since", "0")
        if not (text.isascii() and text.isdigit()):
            raise BadRequestError(f"since: {text!r} is not an event number")

        async def lines() -> AsyncIterator[bytes]:
            async for event in self._host.journal.follow(int(text)):
                yield json.dumps(codec.event_to_json(event)).encode() + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")


def _check(plan: Plan, deployment: str) -> None:
    if plan.deployment != deployment:
        raise BadRequestError(f"this supervisor runs {deployment!r}; the plan is for {plan.deployment!r}")
    if plan.rejections:
        raise BadRequestError(
            f"the plan does not fit: {plan.rejections[0].model}: {plan.rejections[0].reason}"
        )
    for name, count in Counter(spec.name for spec in plan.processes).items():
        if count > 1:
            raise BadRequestError(f"{count} processes of the plan are named {name!r}")
        if not name or "/" in name or name.startswith("."):
            raise BadRequestError(f"{name!r} is not a valid component name")
    for spec in plan.processes:
        if not spec.argv:
            raise BadRequestError(f"{spec.name} has no command to run")


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError as error:
        raise BadRequestError(f"the request body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    return body


def _environment(value: object) -> dict[str, str] | None:
    # Messages do not quote it: it holds secrets.
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadRequestError("environment must be an object")
    for key, text in value.items():
        if not isinstance(text, str) or "\0" in key + text or "=" in key or not key:
            raise BadRequestError("environment must map variable names to strings")
    return value


def _flag(body: dict[str, Any], key: str, default: bool) -> bool:
    value = body.get(key, default)
    if not isinstance(value, bool):
        raise BadRequestError(f"{key} must be true or false")
    return value


async def _refuse(request: Request, error: Exception) -> Response:
    code = getattr(error, "code", "error")
    status = _STATUS_BY_CODE.get(code, 400) if isinstance(error, ControlError) else 400
    return _envelope(status, code, str(error), getattr(error, "hint", ""))


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    return _envelope(status, "no_route", f"{request.method} {request.url.path} does not exist", "")


async def _broken(request: Request, error: Exception) -> Response:
    """A bug of ours. Starlette raises it again once this is sent, so that the log has the traceback."""
    words = f"{request.method} {request.url.path} failed in the supervisor: {type(error).__name__}: {error}"
    return _envelope(500, "internal", words, "see the supervisor's log; `llmlaunch down` still works")


def _envelope(status: int, code: str, message: str, hint: str) -> Response:
    return JsonResponse({"error": {"code": code, "message": message, "hint": hint}}, status)
