"""OpenAI's error object, which every server of ours answers with. Pure."""

from __future__ import annotations

from typing import TypedDict

INVALID_REQUEST = "invalid_request_error"
AUTHENTICATION = "authentication_error"
PERMISSION = "permission_error"
SERVER = "server_error"


class ErrorDetail(TypedDict):
    """What went wrong, for people and for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(TypedDict):
    """The body of an answer that is an error."""

    error: ErrorDetail


def envelope(message: str, kind: str, param: str | None = None, code: str | None = None) -> ErrorEnvelope:
    """``{"error": {"message", "type", "param", "code"}}``, as in OpenAI's API; ``param`` is the field of the request at fault."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
