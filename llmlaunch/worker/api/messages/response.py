"""The response to a request for a message, whole or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from llmlaunch.anthropic import errors
from llmlaunch.anthropic.request_translation import shows_thinking
from llmlaunch.anthropic.response_translation import message
from llmlaunch.anthropic.stream_translation import StreamTranslation, error_event
from llmlaunch.worker.api.chat import response as chat
from llmlaunch.worker.api.generation.inflight import InflightRequests
from llmlaunch.worker.api.messages.prepare import PreparedMessage
from llmlaunch.worker.errors import ApiError


async def full_response(prepared: PreparedMessage, inflight: InflightRequests) -> dict[str, Any]:
    """Return the message, once it is complete."""
    body, completion = prepared.body, await chat.full_response(prepared.chat, inflight)
    thinking = shows_thinking(body.model_dump(include={"thinking"}))
    return message(completion, body.model, stops=body.stop_sequences or (), thinking=thinking)


async def stream_response(prepared: PreparedMessage, inflight: InflightRequests) -> AsyncIterator[bytes]:
    """Yield the events of the message."""
    body = prepared.body
    translation = StreamTranslation(
        body.model,
        stops=body.stop_sequences or (),
        thinking=shows_thinking(body.model_dump(include={"thinking"})),
        input_tokens=prepared.chat.usage.prompt_tokens,
    )
    async for event in chat.stream_response(prepared.chat, inflight):
        events = translation.data(event.removeprefix(b"data: "))
        if events:
            yield events


def stream_error(error: ApiError) -> bytes:
    """Return the event that ends a stream with ``error``."""
    return error_event(error.status, errors.for_claude(error.message, error.code))
