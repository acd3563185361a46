"""Runs the engine requests of one API request, and sends the response, whole or as server-sent events."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from llmlaunch.worker.api.generation.inflight import InflightRequests
from llmlaunch.worker.api.http import (
    KEEP_ALIVE,
    KEEP_ALIVE_S,
    CompactJsonResponse,
    EventStream,
    stream_error,
    while_connected,
)
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.errors import ApiError
from llmlaunch.worker.types import GenerationRequest


class Prepared(Protocol):
    """A request for generated text, validated and tokenized."""

    @property
    def requests(self) -> list[GenerationRequest]:
        """The engine's requests."""


WARNING_HEADER = "X-Llmlaunch-Warning"
"""Names what a request asks for, but is not enforced."""
MAX_WARNING = 1000
"""Characters of the header: proxies limit the size of a response's head."""

AnyPrepared = TypeVar("AnyPrepared", bound=Prepared)


@dataclass(frozen=True, slots=True)
class ResponseWriter(Generic[AnyPrepared]):
    """How an endpoint that generates text writes its response."""

    full: Callable[[AnyPrepared, InflightRequests], Coroutine[Any, Any, dict[str, Any]]]
    stream: Callable[[AnyPrepared, InflightRequests], AsyncIterator[bytes]]
    """Called when there is a first output, or a failure instead."""
    error_event: Callable[[ApiError], bytes] = stream_error
    """What ends a stream in which something failed."""


async def respond(
    request: Request,
    service: Service,
    prepared: AnyPrepared,
    writer: ResponseWriter[AnyPrepared],
    *,
    stream: bool,
) -> Response:
    """Return the response to ``request``. If the client leaves, its engine requests are cancelled. Raises ApiError."""
    cleanup = contextlib.ExitStack()
    try:
        cleanup.enter_context(service.request())
        inflight = InflightRequests(service.engine, prepared.requests, service.metrics)
        cleanup.callback(inflight.close)
        if not stream:
            content = await while_connected(request, writer.full(prepared, inflight))
            return CompactJsonResponse(content, headers=warning_headers(prepared.requests))
        # As long as nothing has been sent, an error can still have its own status code. But proxies do not wait for ever.
        begun = await while_connected(request, inflight.begin(KEEP_ALIVE_S))
        events = writer.stream(prepared, inflight)
        return EventStream(
            events if begun else _after_wait(inflight, events),
            on_end=cleanup.pop_all().close,
            headers=warning_headers(prepared.requests),
            error_event=writer.error_event,
        )
    finally:
        cleanup.close()


async def _after_wait(inflight: InflightRequests, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """``events``, which must not begin before there is an output: the first one tells clients that the prompt is read."""
    yield KEEP_ALIVE
    await inflight.wait()
    async for event in events:
        yield event


def warning_headers(requests: Sequence[GenerationRequest]) -> dict[str, str] | None:
    """Return the header that names the parts of a JSON schema that are not enforced; None if all are."""
    constraint = requests[0].constraint
    if constraint is None or not constraint.ignored:
        return None
    text = "; ".join(constraint.ignored)
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    return {WARNING_HEADER: text if len(text) <= MAX_WARNING else text[: MAX_WARNING - 3] + "..."}
