"""The response, whole or as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from llmlaunch.worker.api.chat.answer import ChatAnswer
from llmlaunch.worker.api.chat.response import chat_logprobs
from llmlaunch.worker.api.generation.inflight import InflightRequests
from llmlaunch.worker.api.http import encode_json
from llmlaunch.worker.api.responses.item_writer import ItemWriter
from llmlaunch.worker.api.responses.prepare import PreparedResponse
from llmlaunch.worker.api.responses.store import StoredTurn
from llmlaunch.worker.errors import ApiError
from llmlaunch.worker.types import FinishReason, GenerationOutput


async def full_response(prepared: PreparedResponse, inflight: InflightRequests) -> dict[str, Any]:
    """Return the response object, once the answer is complete."""
    answer, writer = ChatAnswer(prepared.chat), ItemWriter(prepared.store.new_id, prepared.offered)
    async for _, output in inflight.outputs():
        _events_of(prepared, answer, writer, output)
    return _finished(prepared, answer, writer)


async def stream_response(prepared: PreparedResponse, inflight: InflightRequests) -> AsyncIterator[bytes]:
    """Yield named and numbered server-sent events: created, those of each item, and the whole response at the end."""
    number = 0

    def encoded(event: dict[str, Any]) -> bytes:
        nonlocal number
        name: str = event["type"]
        line = encode_json({"type": name, "sequence_number": number} | event)
        number += 1
        return b"event: " + name.encode() + b"\ndata: " + line + b"\n\n"

    answer, writer = ChatAnswer(prepared.chat), ItemWriter(prepared.store.new_id, prepared.offered)
    for name in ("created", "in_progress"):
        yield encoded({"type": f"response.{name}", "response": prepared.response_object("in_progress")})
    try:
        while (item := await inflight.next()) is not None:
            for event in _events_of(prepared, answer, writer, item[1]):
                yield encoded(event)
    except ApiError as error:
        failure = {"code": "server_error", "message": error.message}
        failed = prepared.response_object("failed", writer.items, error=failure)
        yield encoded({"type": "response.failed", "response": failed})
        return
    response = _finished(prepared, answer, writer)
    yield encoded({"type": f"response.{response['status']}", "response": response})


def _events_of(
    prepared: PreparedResponse, answer: ChatAnswer, writer: ItemWriter, output: GenerationOutput
) -> list[dict[str, Any]]:
    """Add ``output`` to the answer and its items; return the events for it."""
    prepared.chat.usage.take(0, 0, output)
    delta = answer.take(output)
    logprobs = chat_logprobs(prepared.chat, output.logprobs)
    events = list(writer.take(delta, logprobs["content"] if logprobs else []))
    return events + (list(writer.end(_status(answer))) if output.last else [])


def _status(answer: ChatAnswer) -> str:
    complete = answer.last is not None and answer.last.finish is FinishReason.STOP
    return "completed" if complete else "incomplete"


def _finished(prepared: PreparedResponse, answer: ChatAnswer, writer: ItemWriter) -> dict[str, Any]:
    """The whole response; stored for the next turn, unless the request disables that."""
    usage = prepared.chat.usage
    status = _status(answer)
    ending: dict[str, Any] = {"completed_at": int(time.time())}
    if status == "incomplete":
        ending = {"incomplete_details": {"reason": "max_output_tokens"}}
    report = {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    response = prepared.response_object(status, writer.items, usage=report, **ending)
    if prepared.body.store is not False:
        prepared.store.put(StoredTurn(tuple(prepared.input), response))
    return response
