"""Validates and tokenizes one request for a message."""

from __future__ import annotations

from dataclasses import dataclass

from llmlaunch.anthropic.errors import InvalidRequest
from llmlaunch.anthropic.request_translation import chat_request
from llmlaunch.worker.api.chat import prepare as chat
from llmlaunch.worker.api.chat.prepare import PreparedChat
from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.api.http import encode_json
from llmlaunch.worker.api.messages.protocol import MessagesBody
from llmlaunch.worker.api.protocol import parse
from llmlaunch.worker.errors import BadRequest, ContextOverflow
from llmlaunch.worker.loading.types import LoadedGenerator
from llmlaunch.worker.types import GenerationRequest


@dataclass(frozen=True, slots=True)
class PreparedMessage:
    """One request for a message, validated and tokenized."""

    body: MessagesBody
    chat: PreparedChat

    @property
    def requests(self) -> list[GenerationRequest]:
        """The engine's request, in a list."""
        return self.chat.requests


def prepare(body: MessagesBody, loaded: LoadedGenerator) -> PreparedMessage:
    """Validate and tokenize ``body``. Raises ApiError.

    ``max_tokens`` is a limit, and may exceed what the context has room for: every request must give one, and clients give
    that of the model they were made for (Claude Code: 32,000).
    """
    chat_body = _chat_body(body)
    try:
        return PreparedMessage(body, chat.prepare(chat_body, loaded))
    except ContextOverflow:
        if chat_body.max_tokens is None:
            raise
    unlimited = chat_body.model_copy(update={"max_tokens": None})
    return PreparedMessage(body, chat.prepare(unlimited, loaded))


def count_tokens(body: MessagesBody, loaded: LoadedGenerator) -> dict[str, int]:
    """Return the response to /v1/messages/count_tokens. Raises BadRequest."""
    return {"input_tokens": chat.count_prompt(_chat_body(body), loaded)}


def _chat_body(body: MessagesBody) -> ChatBody:
    try:
        translated = chat_request(body.model_dump(), images=False)
    except InvalidRequest as error:
        raise BadRequest(error.message, param=error.param) from None
    return parse(ChatBody, encode_json(translated))
