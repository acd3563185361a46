"""Writes the requested model name into a response when the engine uses another name for the model. Pure.

This is slow, because the content is decoded, parsed and serialised again. It is only done for such engines.
"""

from __future__ import annotations

import json
from typing import Any

from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.http1.framing import ResponseHead
from llmlaunch.gateway.payload.content_rewriter import LIMIT, ContentRewriter, WholeBody
from llmlaunch.gateway.payload.model_field import dump


def rewriter_for(head: ResponseHead, name: str) -> ContentRewriter | None:
    """The rewriter for a response with this ``head``; None: an error, or a content type that cannot be rewritten."""
    if head.status != 200 or head.get(b"content-encoding") not in (b"", b"identity"):
        return None
    kind = head.get(b"content-type").partition(b";")[0].strip().lower()
    if kind == b"application/json":
        return JsonNameRewriter(name)
    return EventNameRewriter(name) if kind == b"text/event-stream" else None


def with_name(text: bytes, name: str) -> bytes:
    """The JSON object ``text`` with ``model`` set to ``name``, also inside ``response`` and ``message``, as the streams of
    /v1/responses and /v1/messages have it.

    Returns ``text`` unchanged if it is not a JSON object with a model.
    """
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, dict):
        return text
    inner = (value, value.get("response"), value.get("message"))
    places = [place for place in inner if isinstance(place, dict) and "model" in place]
    for place in places:
        place["model"] = name
    return dump(value) if places else text


class JsonNameRewriter(WholeBody):
    """Rewrites one JSON object, which is kept until it is complete."""

    def __init__(self, name: str) -> None:
        super().__init__(lambda content: with_name(content, name))


class EventNameRewriter:
    """Rewrites server-sent events, line by line."""

    content_type = b""
    streams = True

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""

    def feed(self, content: bytes) -> bytes:
        """Return the lines that are complete. Raises InvalidResponse for a line beyond :data:`LIMIT`."""
        text = self._rest + content
        cut = text.rfind(b"\n") + 1
        self._rest = text[cut:]
        if len(self._rest) > LIMIT:
            raise InvalidResponse(f"an event is larger than the {LIMIT} bytes that can be rewritten")
        return b"".join(map(self._line, text[:cut].splitlines(keepends=True)))

    def end(self) -> bytes:
        """Return the last line if it has no line end."""
        return self._line(self._rest)

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(b"data:"):
            return line
        text = line[5:].strip()
        if not text.startswith(b"{"):
            return line
        ending = line[len(line.rstrip(b"\r\n")) :]
        return b"data: " + with_name(text, self._name) + ending
