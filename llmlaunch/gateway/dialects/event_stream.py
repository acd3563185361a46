"""Reads the events of a stream, and translates them. Pure."""

from __future__ import annotations

from typing import Protocol

from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.payload.content_rewriter import LIMIT


class EventReader:
    """Cuts a stream into the ``data`` of its events (HTML standard, "Server-sent events"), however its bytes arrive."""

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        """A line that is not complete."""
        self._data: list[bytes] = []
        """The data lines of an event that is not complete."""

    def feed(self, content: bytes) -> list[bytes]:
        """Return the data of the events that are complete. Raises InvalidResponse for an event beyond ``LIMIT`` bytes."""
        lines = (self._rest + content).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LIMIT or sum(map(len, self._data)) > LIMIT:
            raise InvalidResponse(f"an event is larger than the {LIMIT} bytes that can be translated")
        found = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                found.append(b"\n".join(self._data))
                self._data = []
        return found

    def end(self) -> list[bytes]:
        """The stream has ended: return the data of a last event without its empty line."""
        return self.feed(b"\n\n")


class EventTranslation(Protocol):
    """Translates the events of one stream."""

    def data(self, data: bytes) -> bytes:
        """Return what the ``data`` of one event becomes."""
        ...

    def end(self) -> bytes:
        """The stream has ended: return what is left."""
        ...


class TranslatedStream:
    """A stream of events that is translated as it comes. Implements ``content_rewriter.ContentRewriter``."""

    streams = True

    def __init__(self, translation: EventTranslation, content_type: bytes, comment: bytes) -> None:
        """``comment``: what a comment, which keeps the connection alive, becomes."""
        self.content_type = content_type
        self._reader = EventReader()
        self._translation = translation
        self._comment = comment

    def feed(self, content: bytes) -> bytes:
        """Return what the events that are complete become. Raises InvalidResponse for one that is too large."""
        found = self._reader.feed(content)
        if not found and content.lstrip(b"\r\n").startswith(b":"):
            return self._comment
        return b"".join(map(self._translation.data, found))

    def end(self) -> bytes:
        """Return what is left."""
        return b"".join(map(self._translation.data, self._reader.end())) + self._translation.end()
