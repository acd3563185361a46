"""Validates and tokenizes one request for a response."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker.api.chat import prepare as chat
from llmlaunch.worker.api.responses import items
from llmlaunch.worker.api.responses.protocol import ResponsesBody
from llmlaunch.worker.api.responses.store import ResponseStore, StoredTurn
from llmlaunch.worker.background import check_abandoned
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.types import GenerationRequest

RENAMED_PARAMETERS = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
}
"""Parameters whose names differ in chat: chat's name → the name here."""


@dataclass(slots=True)
class PreparedResponse:
    """One request for a response, validated and tokenized."""

    body: ResponsesBody
    chat: chat.PreparedChat
    messages: list[dict[str, Any]]
    """The conversation so far, without instructions."""
    store: ResponseStore
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = self.store.new_id()

    @property
    def requests(self) -> list[GenerationRequest]:
        """The engine's requests: one."""
        return self.chat.requests

    def response_object(
        self, status: str, output: Sequence[dict[str, Any]] = (), **fields: Any
    ) -> dict[str, Any]:
        """Return OpenAI's response object, as far as it is known."""
        body, sampling = self.body, self.requests[0].sampling
        reasoning = body.reasoning or {}
        known = {
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
            "tools": [_response_tool(tool) for tool in body.tools or ()],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": sampling.top_p,
            "truncation": body.truncation or "disabled",
            "usage": None,
            "user": body.user,
            "metadata": body.metadata or {},
        }
        return known | fields


def _response_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as a response has it, with all fields of OpenAI's own."""
    function = tool.get("function")
    flat = {"type": "function"} | function if isinstance(function, dict) else tool
    return {"parameters": None, "strict": None} | flat


def prepare(
    body: ResponsesBody, loaded: LoadedGenerator, previous: StoredTurn | None, store: ResponseStore
) -> PreparedResponse:
    """Validate and tokenize ``body``, which continues ``previous``. Raises ApiError."""
    items.check_supported(body)
    conversation = [*(previous.messages if previous else ()), *items.messages(body.input)]

    def prepared_from(start: int) -> PreparedResponse:
        check_abandoned()
        messages = conversation[start:]
        try:
            return PreparedResponse(
                body, chat.prepare(items.chat_body(body, messages), loaded), messages, store
            )
        except BadRequest as error:
            raise _with_own_names(error) from error

    try:
        return prepared_from(0)
    except ContextOverflow:
        starts = _possible_starts(conversation)
        if body.truncation != "auto" or not starts:
            raise
        return _earliest_that_fits(starts, prepared_from)


def _earliest_that_fits(
    starts: Sequence[int], prepared_from: Callable[[int], PreparedResponse]
) -> PreparedResponse:
    """The result for the first of ``starts`` that fits the context. Raises ContextOverflow if none does."""
    low, high = 0, len(starts) - 1
    found = prepared_from(starts[high])
    while low < high:
        middle = (low + high) // 2
        try:
            found, high = prepared_from(starts[middle]), middle
        except ContextOverflow:
            low = middle + 1
    return found


def _possible_starts(messages: Sequence[dict[str, Any]]) -> list[int]:
    """Where a conversation may start when its beginning is dropped: not with an answer or a tool's result."""
    return [at for at in range(1, len(messages)) if messages[at]["role"] not in ("assistant", "tool")]


def _with_own_names(error: BadRequest) -> BadRequest:
    """``error`` of a chat body with this API's parameter names."""
    old = error.param or ""
    new = RENAMED_PARAMETERS.get(old, old)
    message = (
        error.message.replace(old, new, 1) if new != old and error.message.startswith(old) else error.message
    )
    renamed = type(error)(message, param=new or None)
    renamed.code = error.code
    return renamed
