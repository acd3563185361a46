"""Puts the errors of engines into OpenAI's envelope, which is what clients can read. Pure.

An engine's own errors come in other shapes, and so do those of what stands in front of it: ``{"detail": …}`` from FastAPI,
``{"object": "error", …}`` from older vLLM and FastChat, a string as ``error``, plain text, a page in HTML.
"""

from __future__ import annotations

import html
import json
import re
from http import HTTPStatus
from typing import Any

from llmlaunch.gateway import errors
from llmlaunch.gateway.http1.framing import ResponseHead

LIMIT = 1 << 20
"""Bytes of an error that are kept. Of a longer one only the beginning is shown."""
MESSAGE_LIMIT = 4000
"""Characters of a message: some engines repeat the request in it."""
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
_HIDDEN = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]*>")


class ErrorBody:
    """The content of a response that is an error. Implements ``content_rewriter.ContentRewriter``."""

    streams = False

    def __init__(self, status: int) -> None:
        self.content_type = b""
        self._status = status
        self._parts: list[bytes] = []
        self._room = LIMIT

    def feed(self, content: bytes) -> bytes:
        """Keep ``content`` up to :data:`LIMIT`, and return nothing."""
        if self._room > 0:
            self._parts.append(content[: self._room])
            self._room -= len(content)
        return b""

    def end(self) -> bytes:
        """Return the error in OpenAI's envelope; as it came if it has that form already."""
        body = b"".join(self._parts)
        found = in_envelope(self._status, body)
        if found is None:
            return body
        self.content_type = b"application/json"
        return found


def error_rewriter(head: ResponseHead) -> ErrorBody | None:
    """The rewriter for the error that begins with ``head``; None if it is compressed."""
    return None if head.get(b"content-encoding") not in (b"", b"identity") else ErrorBody(head.status)


def in_envelope(status: int, body: bytes) -> bytes | None:
    """The error ``body`` in OpenAI's envelope; None if it has that form already: an object with a message as ``error``."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        error = value.get("error")
        if isinstance(error, dict) and isinstance(error.get("message"), str):
            return None
        found = error if isinstance(error, dict) else value
        message, param = _message(found), _param(found)
        kind, code = found.get("type"), found.get("code")
    else:
        message, param, kind, code = _shown(value) if value is not None else _plain(body), None, None, None
    known_kind = kind if isinstance(kind, str) and kind else _kind(status)
    known_code = str(code) if isinstance(code, (str, int)) and not isinstance(code, bool) else None
    return errors.envelope(message[:MESSAGE_LIMIT] or _phrase(status), known_kind, param, known_code)


def _kind(status: int) -> str:
    return _KINDS.get(status) or (errors.SERVER if status >= 500 else errors.INVALID)


def _phrase(status: int) -> str:
    try:
        return f"The replica answered {status} {HTTPStatus(status).phrase}."
    except ValueError:
        return f"The replica answered {status}."


def _message(value: dict[str, Any]) -> str:
    """What the object says for people, under whichever name."""
    for name in ("message", "error", "detail", "error_message", "msg", "title", "text", "errors"):
        if found := value.get(name):
            return _shown(found)
    return _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_shown, value)))
    if isinstance(value, dict) and (said := value.get("msg") or value.get("message")):
        where = _place(value)
        return f"{where}: {_shown(said)}" if where else _shown(said)
    return "" if value in (None, {}) else json.dumps(value, ensure_ascii=False)


def _place(value: dict[str, Any]) -> str:
    """Where FastAPI found a fault: ``["body", "messages", 0]`` is ``messages.0``."""
    place = value.get("loc")
    if not isinstance(place, list):
        return ""
    return ".".join(str(step) for step in (place[1:] if place[:1] == ["body"] else place))


def _param(value: dict[str, Any]) -> str | None:
    param, detail = value.get("param"), value.get("detail")
    if isinstance(param, str) and param:
        return param
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        return _place(detail[0]) or None
    return None


def _plain(body: bytes) -> str:
    text = body.decode("utf-8", errors="replace").strip()
    if not text.startswith("<"):
        return text
    title = _TITLE.search(text)
    shown = title[1] if title else _TAG.sub(" ", _HIDDEN.sub(" ", text))
    return " ".join(html.unescape(shown).split())
