"""One response, from its body to its last event."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker.api import chat, prompts
from llmlaunch.worker.api.http import encode
from llmlaunch.worker.api.inflight import InflightRequests
from llmlaunch.worker.api.protocol import ResponsesBody
from llmlaunch.worker.api.responses import items
from llmlaunch.worker.api.responses.store import ResponseStore, StoredTurn
from llmlaunch.worker.api.responses.writer import ItemWriter
from llmlaunch.worker.background import check_abandoned
from llmlaunch.worker.errors import ApiError, BadRequest, ContextOverflow
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.types import FinishReason, GenerationOutput, GenerationRequest

NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
}
"""Parameters whose names differ in chat: chat's name → the name here."""


@dataclass(slots=True)
class ResponseCall:
    """One request for a response, validated and tokenized."""

    body: ResponsesBody
    chat: chat.ChatCall
    messages: list[dict[str, Any]]
    """The conversation so far, without instructions."""
    store: ResponseStore
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = self.store.new_id()

    @property
    def requests(self) -> list[GenerationRequest]:
        return self.chat.requests

    def frame(self, status: str, output: Sequence[dict[str, Any]] = (), **fields: Any) -> dict[str, Any]:
        """The response object, as far as it is known."""
        body, sampling = self.body, self.requests[0].sampling
        reasoning = body.reasoning or {}
        frame = {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": body.model,
            "output": list(output),
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": reasoning.get("effort"), "summary": None},
            "store": body.store is not False,
            "temperature": sampling.temperature,
            "text": {"format": (body.text or {}).get("format") or {"type": "text"}},
            "tool_choice": "auto" if body.tool_choice is None else body.tool_choice,
            "tools": [_told(tool) for tool in body.tools or ()],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": sampling.top_p,
            "truncation": body.truncation or "disabled",
            "usage": None,
            "user": body.user,
            "metadata": body.metadata or {},
        }
        return frame | fields


def _id(prefix: str) -> str:
    return prompts.new_id(prefix).replace("-", "_")


def _told(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool in a response, with all fields of OpenAI's own."""
    function = tool.get("function")
    flat = {"type": "function"} | function if isinstance(function, dict) else tool
    return {"parameters": None, "strict": None} | flat


def prepare(
    body: ResponsesBody, loaded: LoadedGenerator, before: StoredTurn | None, store: ResponseStore
) -> ResponseCall:
    """Validate and tokenize ``body``, which continues ``before``. Raises ApiError."""
    items.refuse(body)
    fresh = items.messages(body.input)
    said = [*(before.messages if before else ()), *fresh]

    def begun(at: int) -> ResponseCall:
        check_abandoned()
        try:
            return ResponseCall(
                body, chat.prepare(items.chat_body(body, said[at:]), loaded), said[at:], store
            )
        except BadRequest as error:
            raise _renamed(error) from error

    try:
        return begun(0)
    except ContextOverflow:
        starts = _starts(said)
        if body.truncation != "auto" or not starts:
            raise
        return _earliest(starts, begun)


def _earliest(starts: Sequence[int], begun: Callable[[int], ResponseCall]) -> ResponseCall:
    """The result of ``begun`` for the first of ``starts`` that fits the context. Raises ContextOverflow if none does."""
    low, high = 0, len(starts) - 1
    found = begun(starts[high])
    while low < high:
        middle = (low + high) // 2
        try:
            found, high = begun(starts[middle]), middle
        except ContextOverflow:
            low = middle + 1
    return found


def _starts(said: Sequence[dict[str, Any]]) -> list[int]:
    """Where a conversation may start when its beginning is dropped: not with an answer or a tool's result."""
    return [at for at in range(1, len(said)) if said[at]["role"] not in ("assistant", "tool")]


def _renamed(error: BadRequest) -> BadRequest:
    old = error.param or ""
    new = NAMES.get(old, old)
    message = (
        error.message.replace(old, new, 1) if new != old and error.message.startswith(old) else error.message
    )
    made = type(error)(message, param=new or None)
    made.code = error.code
    return made


async def whole(call: ResponseCall, inflight: InflightRequests) -> dict[str, Any]:
    """The response object, once the answer is complete."""
    answer, writer = chat.ChatAnswer(call.chat), ItemWriter(_id)
    async for _, output in inflight.outputs():
        for _ in _news(call, answer, writer, output):
            pass
    return _end(call, answer, writer)


async def events(
    call: ResponseCall, inflight: InflightRequests, first: tuple[int, GenerationOutput] | None
) -> AsyncIterator[bytes]:
    """Server-sent events, named and numbered: created, the events of each item, and the whole response at the end."""
    number = 0

    def told(event: dict[str, Any]) -> bytes:
        nonlocal number
        name: str = event["type"]
        line = encode({"type": name, "sequence_number": number} | event)
        number += 1
        return b"event: " + name.encode() + b"\ndata: " + line + b"\n\n"

    answer, writer = chat.ChatAnswer(call.chat), ItemWriter(_id)
    for name in ("created", "in_progress"):
        yield told({"type": f"response.{name}", "response": call.frame("in_progress")})
    item = first
    try:
        while item is not None:
            for event in _news(call, answer, writer, item[1]):
                yield told(event)
            item = await inflight.next()
    except ApiError as error:
        failure = {"code": "server_error", "message": error.message}
        failed = call.frame("failed", writer.items, error=failure)
        yield told({"type": "response.failed", "response": failed})
        return
    response = _end(call, answer, writer)
    yield told({"type": f"response.{response['status']}", "response": response})


def _news(
    call: ResponseCall, answer: chat.ChatAnswer, writer: ItemWriter, output: GenerationOutput
) -> list[dict[str, Any]]:
    call.chat.usage.take(0, 0, output)
    delta = answer.take(output)
    told = chat.logprobs_of(call.chat, output.logprobs)
    events = list(writer.take(delta, told["content"] if told else []))
    return events + (list(writer.end(_status(answer))) if output.last else [])


def _status(answer: chat.ChatAnswer) -> str:
    over = answer.last is not None and answer.last.finish is FinishReason.STOP
    return "completed" if over else "incomplete"


def _end(call: ResponseCall, answer: chat.ChatAnswer, writer: ItemWriter) -> dict[str, Any]:
    """The whole response; stored for the next turn, unless the request disables that."""
    usage = call.chat.usage
    status = _status(answer)
    cut = {"incomplete_details": {"reason": "max_output_tokens"}} if status == "incomplete" else {}
    report = {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    response = call.frame(status, writer.items, usage=report, **cut)
    if call.body.store is not False:
        message = {"role": "assistant", "content": answer.text}
        calls = {"tool_calls": answer.calls} if answer.calls else {}
        call.store.put(StoredTurn((*call.messages, message | calls), response))
    return response
