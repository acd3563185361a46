"""Validates and tokenizes one request for a response."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker.api.chat import prepare as chat
from llmlaunch.worker.api.responses import chat_form, items
from llmlaunch.worker.api.responses.input_items import with_ids
from llmlaunch.worker.api.responses.protocol import ResponsesBody
from llmlaunch.worker.api.responses.store import ResponseStore
from llmlaunch.worker.api.responses.tools import OfferedTools, offered_tools
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
ECHOED = ("max_tool_calls", "prompt_cache_key", "safety_identifier", "user")
"""Parameters that mean nothing here, and come back as they are."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """The items of a request: those of the responses that it continues, then its own."""

    earlier: Sequence[dict[str, Any]]
    given: Sequence[dict[str, Any]]


@dataclass(slots=True)
class PreparedResponse:
    """One request for a response, validated and tokenized."""

    body: ResponsesBody
    chat: chat.PreparedChat
    input: Sequence[dict[str, Any]]
    """All items before the output, each with an id; empty if the response is not stored."""
    offered: OfferedTools
    store: ResponseStore
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = self.store.new_id("resp")

    @property
    def requests(self) -> list[GenerationRequest]:
        """The engine's requests: one."""
        return self.chat.requests

    def response_object(
        self, status: str, output: Sequence[dict[str, Any]] = (), **fields: Any
    ) -> dict[str, Any]:
        """Return OpenAI's response object, as far as it is known."""
        body, sampling = self.body, self.requests[0].sampling
        text, reasoning = body.text or {}, body.reasoning or {}
        known = {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": body.model,
            "output": list(output),
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": reasoning.get("effort"), "summary": None},
            "service_tier": "default",
            "store": body.store is not False,
            "temperature": sampling.temperature,
            "text": {"format": text.get("format") or {"type": "text"}, "verbosity": text.get("verbosity")},
            "tool_choice": "auto" if body.tool_choice is None else body.tool_choice,
            "tools": list(self.offered.declared),
            "top_logprobs": body.top_logprobs or 0,
            "top_p": sampling.top_p,
            "truncation": body.truncation or "disabled",
            "usage": None,
            "metadata": body.metadata or {},
        }
        return known | {name: getattr(body, name) for name in ECHOED} | fields


def prepare(
    body: ResponsesBody, loaded: LoadedGenerator, conversation: Conversation, store: ResponseStore
) -> PreparedResponse:
    """Validate and tokenize ``body``, whose items are ``conversation``. Raises ApiError."""
    system, messages, offered = _read(body, conversation)
    stored = (
        [] if body.store is False else [*conversation.earlier, *with_ids(conversation.given, store.new_id)]
    )

    def prepared_from(start: int) -> PreparedResponse:
        check_abandoned()
        try:
            chat_body = chat_form.chat_body(body, [*system, *messages[start:]], offered)
            return PreparedResponse(body, chat.prepare(chat_body, loaded), stored, offered, store)
        except BadRequest as error:
            raise _with_own_names(error) from error

    try:
        return prepared_from(0)
    except ContextOverflow:
        starts = _possible_starts(messages)
        if body.truncation != "auto" or not starts:
            raise
        return _earliest_that_fits(starts, prepared_from)


def count_input(body: ResponsesBody, loaded: LoadedGenerator, conversation: Conversation) -> int:
    """Return the number of tokens that the model would be given, which may exceed its context. Raises ApiError."""
    system, messages, offered = _read(body, conversation)
    try:
        return chat.count_prompt(chat_form.chat_body(body, [*system, *messages], offered), loaded)
    except BadRequest as error:
        raise _with_own_names(error) from error


def _read(
    body: ResponsesBody, conversation: Conversation
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], OfferedTools]:
    """The system message, the other messages and the tools. Raises BadRequest."""
    chat_form.check_supported(body)
    every = [*conversation.earlier, *conversation.given]
    offered = offered_tools([*(body.tools or ()), *items.further_tools(every)], body.tool_choice)
    messages = items.messages(every, offered, first=len(conversation.earlier))
    system, messages = chat_form.split_system(body.instructions, messages)
    if not system and not messages:
        raise BadRequest("input contains no messages", param="input")
    return system, messages, offered


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


def _possible_starts(messages: Sequence[Mapping[str, Any]]) -> list[int]:
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
