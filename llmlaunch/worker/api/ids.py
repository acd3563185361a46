"""Ids of responses, requests and tool calls."""

from __future__ import annotations

import secrets
import string

_ALPHANUMERIC = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """Return a new random id that begins with ``prefix`` and a hyphen."""
    return f"{prefix}-{secrets.token_hex(12)}"


def new_call_id() -> str:
    """Return a new random id of a tool call: nine letters and digits.

    Clients send it back, and the chat templates of Mistral's models refuse any other form.
    """
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))
