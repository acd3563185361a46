"""Writes the requested model name into a response when the engine uses another name for the model. Pure.

This is slow, because the content is decoded, parsed and serialised again. It is only done for such engines.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from llmlaunch.gateway.http1.framing import InvalidResponse, ResponseHead
from llmlaunch.gateway.payload.model_field import dump

LIMIT = 64 << 20
"""The largest response (or line of an event stream) that can be rewritten, in bytes."""


class NameRewriter(Protocol):
    """Rewrites the content of one answer."""

    streams: bool
    """True: :meth:`feed` returns content as it comes. False: :meth:`end` returns all of it."""

    def feed(self, content: bytes) -> bytes:
        """Take the next bytes and return those that are ready. Raises InvalidResponse beyond :data:`LIMIT`."""
        ...

    def end(self) -> bytes:
        """The content is complete: return the rest."""
        ...


def rewriter_for(head: ResponseHead, name: str) -> NameRewriter | None:
    """The rewriter for a response with this ``head``; None: an error, or a content type that cannot be rewritten."""
    if head.status != 200 or head.get(b"content-encoding") not in (b"", b"identity"):
        return None
    kind = head.get(b"content-type").partition(b";")[0].strip().lower()
    if kind == b"application/json":
        return JsonNameRewriter(name)
    return EventNameRewriter(name) if kind == b"text/event-stream" else None


def with_name(text: bytes, name: str) -> bytes:
    """The JSON object ``text`` with ``model`` set to ``name``, also inside ``response``, as /v1/responses streams it.

    Returns ``text`` unchanged if it is not a JSON object with a model.
    """
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(value, dict):
        return text
    inner = value.get("response")
    places = [place for place in (value, inner) if isinstance(place, dict) and "model" in place]
    for place in places:
        place["model"] = name
    return dump(value) if places else text


class JsonNameRewriter:
    """Rewrites one JSON object, which is kept until it is complete."""

    streams = False

    def __init__(self, name: str) -> None:
        self._name = name
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, content: bytes) -> bytes:
        """Keep ``content`` and return nothing. Raises InvalidResponse beyond :data:`LIMIT`."""
        self._parts.append(content)
        self._size += len(content)
        if self._size > LIMIT:
            raise InvalidResponse(f"it is larger than the {LIMIT} bytes that can be renamed")
        return b""

    def end(self) -> bytes:
        """Return the whole object with the new name."""
        return with_name(b"".join(self._parts), self._name)


class EventNameRewriter:
    """Rewrites server-sent events, line by line."""

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
            raise InvalidResponse(f"an event is larger than the {LIMIT} bytes that can be renamed")
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
