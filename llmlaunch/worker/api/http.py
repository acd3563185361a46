"""What all handlers need of HTTP: JSON, server-sent events, error responses, and client disconnects."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmlaunch.anthropic import errors as anthropic_errors
from llmlaunch.common import content_coding
from llmlaunch.worker.background import check_abandoned
from llmlaunch.worker.errors import (
    ApiError,
    BadRequest,
    EngineFault,
    MethodNotAllowed,
    RequestTooLarge,
    UnsupportedEncoding,
)

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 << 20
TOO_LARGE = f"the body is larger than {MAX_BODY_BYTES >> 20} MiB"
SSE_DONE = b"data: [DONE]\n\n"
KEEP_ALIVE_S = 10.0
"""Seconds of silence after which a stream gets a comment: proxies and load balancers cut it after 60."""
KEEP_ALIVE = b": keep-alive\n\n"
"""The comment; readers of server-sent events skip it."""

ANTHROPIC_PATHS = "/v1/messages"
"""The beginning of the paths of Anthropic's API."""

Value = TypeVar("Value")
Handler = Callable[[Request], Awaitable[Response]]


def stream_error(error: ApiError) -> bytes:
    """Return the events that end a stream of OpenAI's API with ``error``."""
    return sse_event(error.envelope()) + SSE_DONE


class CompactJsonResponse(Response):
    """A JSON response without spaces."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return ``content`` as JSON."""
        return encode_json(content)


def encode_json(value: Any) -> bytes:
    """Return ``value`` as compact JSON in UTF-8. Raises ValueError for NaN and infinity."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8", errors="replace"
    )


def sse_event(value: Any) -> bytes:
    """Return one server-sent event with ``value`` as its data."""
    return b"data: " + encode_json(value) + b"\n\n"


def error_response(error: ApiError, path: str) -> Response:
    """Return ``error`` as a response with OpenAI's error envelope; with Anthropic's, if ``path`` is one of its API's."""
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else {}
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allowed
    if isinstance(error, UnsupportedEncoding):
        headers["Accept-Encoding"] = error.accepted
    body: Any = error.envelope()
    if path.startswith(ANTHROPIC_PATHS):
        body = anthropic_errors.envelope(error.status, anthropic_errors.for_claude(error.message, error.code))
    return CompactJsonResponse(body, error.status, headers)


def with_error_responses(handler: Handler) -> Handler:
    """Return ``handler`` with its exceptions as error responses: an ApiError as it is, any other as a 500 that is logged."""

    async def run(request: Request) -> Response:
        try:
            return await handler(request)
        except ApiError as error:
            return error_response(error, request.url.path)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except Exception as error:
            log.exception("%s failed", request.url.path)
            return error_response(EngineFault(f"the worker failed: {type(error).__name__}"), request.url.path)

    return run


class MethodDispatch:
    """All of one path as an ASGI application: a handler for each method; other methods are answered with 405."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = {method: with_error_responses(handler) for method, handler in handlers.items()}
        if "GET" in self._handlers:
            self._handlers.setdefault("HEAD", self._handlers["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive, send)
        handler = self._handlers.get(request.method)
        if handler is not None:
            answer = await handler(request)
        else:
            where = f"{request.method} {request.url.path}"
            allowed = ", ".join(self._handlers)
            answer = error_response(
                MethodNotAllowed(f"{where}: this method is not allowed here; use {allowed}", allowed),
                request.url.path,
            )
        await answer(scope, receive, send)


async def read_body(request: Request) -> bytes:
    """Return the whole body. Raises RequestTooLarge beyond MAX_BODY_BYTES, ClientDisconnect if the client has left."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise RequestTooLarge(TOO_LARGE)
        chunks.append(chunk)
    return b"".join(chunks)


def body_coding(request: Request) -> str:
    """Return how the body is packed, as ``content_coding`` names it; empty: it is not. Raises UnsupportedEncoding."""
    field = request.headers.get("content-encoding", "")
    if not field:
        return ""
    coding = content_coding.coding_of(field)
    if coding is None:
        known = ", ".join(content_coding.supported())
        raise UnsupportedEncoding(f"Content-Encoding {field!r} is not supported; supported: {known}", known)
    return coding


def unpacked(body: bytes, coding: str) -> bytes:
    """Return what is packed in ``body``. Raises BadRequest, and RequestTooLarge beyond MAX_BODY_BYTES."""
    pieces, size = [], 0
    try:
        for piece in content_coding.unpack(body, coding):
            check_abandoned()
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise RequestTooLarge(TOO_LARGE)
            pieces.append(piece)
    except content_coding.BadCodingError as error:
        raise BadRequest(
            f"the body is not valid {coding}, as Content-Encoding says: {error}", code="bad_content_encoding"
        ) from None
    except content_coding.BombError as error:
        raise RequestTooLarge(f"the body, unpacked, is {error}") from None
    return b"".join(pieces)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """Return the result of ``work``. Cancels it as soon as the client leaves, and raises ClientDisconnect."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


class EventStream(Response):
    """Streams events as they come, and comments while none come; closes the source as soon as the client leaves."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        on_end: Callable[[], None],
        headers: dict[str, str] | None = None,
        error_event: Callable[[ApiError], bytes] = stream_error,
    ) -> None:
        """``error_event`` makes what ends the stream if something fails."""
        super().__init__(
            media_type="text/event-stream", headers={"Cache-Control": "no-cache"} | (headers or {})
        )
        # A stream has no content length, but Response has set the one of an empty body.
        self.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]
        self._events = events
        self._on_end = on_end
        self._error_event = error_event
        self._silent_since: float | None = None
        """Since when an event is waited for, in seconds of the monotonic clock; None: one is being sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client leaves."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            pause = KEEP_ALIVE_S
            while not (
                await asyncio.wait({sending, leaving}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            )[0]:
                pause = await self._keep_alive(send)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            self._on_end()

    async def _keep_alive(self, send: Send) -> float:
        """Send a comment if the stream has been silent for long enough; return the seconds until the next look."""
        since = self._silent_since
        if since is None:  # the client reads slowly
            return KEEP_ALIVE_S
        silent_s = time.monotonic() - since
        if silent_s < KEEP_ALIVE_S:
            return KEEP_ALIVE_S - silent_s
        self._silent_since = time.monotonic()
        await send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})
        return KEEP_ALIVE_S

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._silent_since = time.monotonic()
        last = b""
        try:
            async for chunk in self._events:
                self._silent_since = None
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                self._silent_since = time.monotonic()
        except ApiError as error:
            last = self._error_event(error)
        except OSError:
            return  # the client is gone
        except Exception as error:
            log.exception("a stream failed")
            last = self._error_event(EngineFault(f"the worker failed: {type(error).__name__}"))
        self._silent_since = None
        await send({"type": "http.response.body", "body": last, "more_body": False})
