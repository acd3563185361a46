"""Errors in Anthropic's envelope: ``{"type": "error", "error": {"type", "message"}, "request_id"}``. Pure."""

from __future__ import annotations

import json
from typing import Any

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
TOO_LONG = "prompt is too long"
"""The words by which Claude Code and others recognise that a conversation has to be compacted."""


class InvalidRequest(ValueError):
    """A body that cannot be translated. ``param`` is the path of the field at fault."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def error_type(status: int) -> str:
    """The ``type`` of an error with the HTTP ``status``."""
    return _TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")


def envelope(status: int, message: str, request_id: str = "") -> dict[str, Any]:
    """The body of an error with the HTTP ``status``."""
    found: dict[str, Any] = {"type": "error", "error": {"type": error_type(status), "message": message}}
    return found | {"request_id": request_id} if request_id else found


def from_openai(status: int, body: bytes, request_id: str = "") -> dict[str, Any]:
    """The envelope for an error that came in OpenAI's envelope, in another engine's form, or as text."""
    return envelope(status, _message(body) or f"the engine answered with status {status}", request_id)


def _message(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text[:1000]
    code = ""
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        value = value["error"]
    if isinstance(value, dict):
        code = str(value.get("code") or "")
        value = next((value[key] for key in ("message", "error", "detail") if value.get(key)), value)
    message = value if isinstance(value, str) else json.dumps(value)
    return for_claude(message, code)


def for_claude(message: str, code: str | None) -> str:
    """``message``, so that clients recognise a prompt that exceeds the context. ``code`` is OpenAI's."""
    overflows = code == "context_length_exceeded" or "maximum context length" in message
    return f"{TOO_LONG}: {message}" if overflows and TOO_LONG not in message else message
