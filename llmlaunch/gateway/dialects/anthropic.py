"""Anthropic's Messages API, for replicas that do not have it. vLLM, SGLang, llama.cpp and our own worker do. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from llmlaunch.anthropic import errors
from llmlaunch.anthropic.errors import InvalidRequest
from llmlaunch.anthropic.request_translation import chat_request, shows_thinking
from llmlaunch.anthropic.response_translation import message, usage
from llmlaunch.anthropic.stream_translation import PING, StreamTranslation, error_event
from llmlaunch.gateway.dialects.dialect import TranslatedRequest
from llmlaunch.gateway.dialects.event_stream import TranslatedStream
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.payload.content_rewriter import ContentRewriter, WholeBody
from llmlaunch.gateway.payload.model_field import InvalidBody, dump, parse

_CHAT = b"/v1/chat/completions"
_JSON = b"application/json"
_EVENTS = b"text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class AnthropicDialect:
    """``counts``: the endpoint only counts the tokens of a request. Implements ``dialect.Dialect``."""

    counts: bool = False
    native: bool = True
    streams_events: bool = True

    def request(self, body: bytes) -> TranslatedRequest:
        """Translate a client's body. Raises InvalidBody.

        Tokens are counted by a request for a single token: no other endpoint that all engines have tells how long a prompt
        becomes with its template and its tools. What it computes is in the KV cache when the prompt itself comes.
        """
        asked = parse(body)
        try:
            chat = chat_request(asked, images=True)
        except InvalidRequest as error:
            raise InvalidBody(error.message, error.param) from None
        if self.counts:
            chat = {key: value for key, value in chat.items() if key not in ("stream", "stream_options")}
            return TranslatedRequest(_CHAT, dump(chat | {"max_tokens": 1}), _count_translator)
        return TranslatedRequest(_CHAT, dump(chat), partial(_translator, asked))

    def error(self, reply: Reply, identity: bytes) -> Reply:
        """An error of the gateway's own in Anthropic's envelope."""
        body = json.dumps(errors.from_openai(reply.status, reply.body, identity.decode("latin-1"))).encode()
        return replace(reply, body=body, fields=b"%brequest-id: %b\r\n" % (reply.fields, identity))

    def native_error(self, status: int) -> ContentRewriter:
        """With the types of Anthropic's errors, and the words for a prompt that is too long; vLLM has its own."""
        return _error_translator(status)

    def interruption(self, message: str) -> bytes:
        """An error event. The newlines finish an event that was cut."""
        return b"\n\n" + error_event(500, message)


MESSAGES = AnthropicDialect()
COUNT_TOKENS = AnthropicDialect(counts=True)


def _translator(asked: dict[str, Any], status: int, media_type: bytes) -> ContentRewriter:
    if status != 200:
        return _error_translator(status)
    model, stops, thinking = asked["model"], asked.get("stop_sequences") or (), shows_thinking(asked)
    if media_type == b"text/event-stream":
        return TranslatedStream(
            StreamTranslation(model, stops=stops, thinking=thinking), _EVENTS, comment=PING
        )

    def whole(content: bytes) -> bytes:
        return dump(message(_completion(content), model, stops=stops, thinking=thinking))

    return WholeBody(whole, _JSON)


def _count_translator(status: int, media_type: bytes) -> ContentRewriter:
    if status != 200:
        return _error_translator(status)

    def count(content: bytes) -> bytes:
        counts = usage(_completion(content).get("usage"))
        return dump({"input_tokens": counts["input_tokens"] + counts["cache_read_input_tokens"]})

    return WholeBody(count, _JSON)


def _error_translator(status: int) -> WholeBody:
    return WholeBody(lambda content: dump(errors.from_openai(status, content)), _JSON)


def _completion(content: bytes) -> dict[str, Any]:
    try:
        return parse(content)
    except InvalidBody as error:
        raise InvalidResponse(f"its content cannot be translated: {error.message}") from None
