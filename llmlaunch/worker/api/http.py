"""What all handlers need of HTTP: JSON, server-sent events, error responses, and client disconnects."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmlaunch.worker.errors import ApiError, EngineFault, RequestTooLarge

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 32 << 20
SSE_DONE = b"data: [DONE]\n\n"

Value = TypeVar("Value")
Handler = Callable[[Request], Awaitable[Response]]


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


def error_response(error: ApiError) -> Response:
    """Return ``error`` as a response with OpenAI's error envelope."""
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else None
    return CompactJsonResponse(error.envelope(), error.status, headers)


def with_error_responses(handler: Handler) -> Handler:
    """Return ``handler`` with its exceptions as error responses: an ApiError as it is, any other as a 500 that is logged."""

    async def run(request: Request) -> Response:
        try:
            return await handler(request)
        except ApiError as error:
            return error_response(error)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except Exception as error:
            log.exception("%s failed", request.url.path)
            return error_response(EngineFault(f"the worker failed: {type(error).__name__}"))

    return run


async def read_body(request: Request) -> bytes:
    """Return the whole body. Raises RequestTooLarge beyond MAX_BODY_BYTES, ClientDisconnect if the client has left."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise RequestTooLarge(f"the body is larger than {MAX_BODY_BYTES >> 20} MiB")
        chunks.append(chunk)
    return b"".join(chunks)


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
    """Streams events as they come; closes their source as soon as the client leaves."""

    def __init__(self, events: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        # A stream has no content length, but Response has set the one of an empty body.
        self.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]
        self._events = events
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client leaves."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            self._on_end()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for chunk in self._events:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ApiError as error:
            await send(
                {
                    "type": "http.response.body",
                    "body": sse_event(error.envelope()) + SSE_DONE,
                    "more_body": True,
                }
            )
        except OSError:
            return  # the client is gone
        except Exception as error:
            log.exception("a stream failed")
            fault = EngineFault(f"the worker failed: {type(error).__name__}").envelope()
            await send({"type": "http.response.body", "body": sse_event(fault) + SSE_DONE, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
