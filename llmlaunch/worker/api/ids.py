"""Ids of responses, requests and tool calls."""

from __future__ import annotations

import secrets


def new_id(prefix: str) -> str:
    """Return a new random id that begins with ``prefix`` and a hyphen."""
    return f"{prefix}-{secrets.token_hex(12)}"
