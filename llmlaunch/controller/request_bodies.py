"""Parses requests and answers errors. Every error of the controller has OpenAI's envelope and a fitting status."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from llmlaunch.common import error_envelope

BODY_BYTES = 1 << 20

log = logging.getLogger(__name__)

Body = TypeVar("Body", bound=BaseModel)
Number = TypeVar("Number", int, float)


class RequestRejected(Exception):
    """A request that is answered with ``status`` and an error envelope."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


async def read(request: Request, model: type[Body]) -> Body:
    """The request's JSON body as ``model``. Raises RequestRejected: 400 for bad JSON, 422 for bad values, 413 when too long."""
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > BODY_BYTES:
            raise RequestRejected(413, f"the request body is larger than {BODY_BYTES} bytes")
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise RequestRejected(
                400, f"the request body is not valid JSON: {first['msg']}", code="invalid_json"
            ) from error
        where = ".".join(map(str, first["loc"]))
        raise RequestRejected(
            422, f"{where}: {first['msg']}" if where else first["msg"], param=where or None
        ) from error


def number(request: Request, name: str, default: Number, kind: type[Number]) -> Number:
    """The query parameter ``name`` as ``kind``. Raises RequestRejected."""
    text = request.query_params.get(name, "")
    if not text:
        return default
    try:
        value = kind(text)
    except ValueError:
        raise RequestRejected(422, f"{name}: {text[:40]!r} is not a number", param=name) from None
    if value != value:  # a wait of NaN seconds would never end
        raise RequestRejected(422, f"{name}: {text[:40]!r} is not a number", param=name)
    return value


_TYPES = {401: error_envelope.AUTHENTICATION, 403: error_envelope.PERMISSION}


def envelope(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """A response with OpenAI's error envelope."""
    kind = _TYPES.get(status, error_envelope.SERVER if status >= 500 else error_envelope.INVALID_REQUEST)
    body = error_envelope.envelope(message, kind, param, code)
    return JSONResponse(body, status_code=status, headers=headers)


async def _refused(_: Request, error: Any) -> Response:
    if error.status >= 401 and error.status != 404:
        log.info("rejected request: %s", error.message)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return envelope(error.status, error.message, param=error.param, code=error.code, headers=headers)


async def _http_exception(request: Request, error: Any) -> Response:
    messages = {
        404: f"no such endpoint: {request.url.path}",
        405: f"{request.url.path} does not accept {request.method}",
    }
    message = messages.get(error.status_code, str(error.detail))
    return envelope(error.status_code, message, headers=dict(error.headers or {}))


async def _client_left(_: Request, __: Any) -> Response:
    return Response(status_code=499)


async def _fault(_: Request, __: Any) -> Response:
    return envelope(500, "internal error; see the controller's log")


EXCEPTION_HANDLERS: dict[Any, Any] = {
    RequestRejected: _refused,
    HTTPException: _http_exception,
    ClientDisconnect: _client_left,
    Exception: _fault,
}
