"""Ollama's endpoints for text and vectors as dialects of OpenAI's API. Pure: the clocks come in as functions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from llmlaunch.gateway.dialects.dialect import TranslatedRequest
from llmlaunch.gateway.dialects.event_stream import TranslatedStream
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.ollama import request_translation, response_translation
from llmlaunch.gateway.ollama.request_translation import OpenAIRequest
from llmlaunch.gateway.ollama.response_translation import GenerationShape
from llmlaunch.gateway.ollama.stream_translation import StreamTranslation, line
from llmlaunch.gateway.ollama.timing import Clocks, Stopwatch
from llmlaunch.gateway.payload.content_rewriter import ContentRewriter, WholeBody
from llmlaunch.gateway.payload.model_field import InvalidBody, dump, parse

JSON = b"application/json; charset=utf-8"
LINES = b"application/x-ndjson"
_UNKNOWN_MODEL = re.compile(r"The model `(.*)` does not exist\.", re.DOTALL)


class OllamaErrors:
    """How errors look in Ollama's API: ``{"error": "…"}``. The dialect of endpoints that the gateway answers itself."""

    native = False
    streams_events = False

    def request(self, body: bytes) -> TranslatedRequest:
        """Not called: no replica has these endpoints."""
        raise InvalidBody("This endpoint needs no model.")

    def error(self, reply: Reply, identity: bytes) -> Reply:
        """``reply`` in Ollama's form."""
        message = response_translation.error_message(reply.body, reply.status)
        if (unknown := _UNKNOWN_MODEL.fullmatch(message)) is not None:
            message = f"model '{unknown[1]}' not found"  # words that clients look for
        return Reply(reply.status, dump(response_translation.error(message)), reply.fields, JSON)

    def native_error(self, status: int) -> ContentRewriter:
        """Not called: no replica has these endpoints."""
        return _whole(status, dict, in_lines=False)

    def interruption(self, message: str) -> bytes:
        """The last line of a stream that cannot go on. Nothing but whole lines came before it."""
        return line(response_translation.error(message))


class OllamaGeneration(OllamaErrors):
    """/api/chat, or /api/generate."""

    def __init__(self, clocks: Clocks, *, chat: bool) -> None:
        self._clocks = clocks
        self._chat = chat

    def own_reply(self, body: bytes) -> Reply | None:
        """The reply to a request without messages or prompt, which has a model loaded, or unloaded."""
        asked = parse(body)
        if not request_translation.needs_no_model(asked, "messages" if self._chat else "prompt"):
            return None
        shape = GenerationShape(str(asked["model"]), Stopwatch(self._clocks), chat=self._chat)
        return Reply(200, dump(shape.part("") | {"done": True, "done_reason": "load"}), content_type=JSON)

    def request(self, body: bytes) -> TranslatedRequest:
        """Translate a client's body. Raises InvalidBody."""
        asked = parse(body)
        wanted = request_translation.chat(asked) if self._chat else request_translation.generate(asked)
        stopwatch = Stopwatch(self._clocks)
        shape = GenerationShape(wanted.body["model"], stopwatch, chat=self._chat)

        def translator(status: int, media_type: bytes) -> ContentRewriter:
            if status == 200 and media_type == b"text/event-stream" and wanted.streams:
                # JSON may have blanks before a value.
                return TranslatedStream(StreamTranslation(shape, stopwatch), LINES, comment=b" ")
            return _whole(status, shape.whole, in_lines=wanted.streams)

        return TranslatedRequest(wanted.path, dump(wanted.body), translator)


class OllamaEmbedding(OllamaErrors):
    """/api/embed, or, with ``many=False``, the older /api/embeddings."""

    def __init__(self, clocks: Clocks, *, many: bool) -> None:
        self._clocks = clocks
        self._many = many

    def own_reply(self, body: bytes) -> Reply | None:
        """The reply to a request without texts, which has a model loaded."""
        asked = parse(body)
        if asked.get("input" if self._many else "prompt"):
            return None
        nothing = {"model": asked["model"], "embeddings": []} if self._many else {"embedding": []}
        return Reply(200, dump(nothing), content_type=JSON)

    def request(self, body: bytes) -> TranslatedRequest:
        """Translate a client's body. Raises InvalidBody."""
        wanted = self._read(parse(body))
        stopwatch = Stopwatch(self._clocks)

        def read(answer: dict[str, Any]) -> dict[str, Any]:
            if not self._many:
                return response_translation.embeddings(answer)
            return response_translation.embed(wanted.body["model"], answer, stopwatch)

        return TranslatedRequest(
            wanted.path, dump(wanted.body), lambda status, media_type: _whole(status, read, in_lines=False)
        )

    def _read(self, body: dict[str, Any]) -> OpenAIRequest:
        return request_translation.embed(body) if self._many else request_translation.embeddings(body)


def _whole(
    status: int, translate: Callable[[dict[str, Any]], dict[str, Any]], *, in_lines: bool
) -> ContentRewriter:
    """Translates a response that comes at once, even if a stream was asked for (``in_lines``)."""

    def rewrite(body: bytes) -> bytes:
        if status != 200:
            return dump(response_translation.error(response_translation.error_message(body, status)))
        try:
            value = translate(json.loads(body))
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError):
            raise InvalidResponse("it is not a response of OpenAI's API") from None
        return line(value) if in_lines else dump(value)

    return WholeBody(rewrite, LINES if in_lines and status == 200 else JSON)
