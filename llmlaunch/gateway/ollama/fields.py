"""Reads the fields of a body in Ollama's API, where ``null`` means that a field is not there. Pure."""

from __future__ import annotations

from typing import Any

from llmlaunch.gateway.payload.model_field import InvalidBody


def text(body: dict[str, Any], name: str) -> str:
    """The string ``name``; empty when there is none. Raises InvalidBody."""
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidBody(f"{name} must be a string.", name)
    return value


def flag(body: dict[str, Any], name: str, default: bool) -> bool:
    """The boolean ``name``. Raises InvalidBody."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidBody(f"{name} must be true or false.", name)
    return value


def items(body: dict[str, Any], name: str) -> list[Any]:
    """The list ``name``; empty when there is none. Raises InvalidBody."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidBody(f"{name} must be a list.", name)
    return value


def mapping(body: dict[str, Any], name: str) -> dict[str, Any]:
    """The object ``name``; empty when there is none. Raises InvalidBody."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidBody(f"{name} must be an object.", name)
    return value


def number(value: object, name: str) -> float:
    """``value`` as a number. Raises InvalidBody."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidBody(f"{name} must be a number.", name)
    return value


def whole_number(value: object, name: str) -> int:
    """``value`` as an integer; its fraction is cut off, as Ollama does. Raises InvalidBody."""
    found = number(value, name)
    try:
        return int(found)
    except (OverflowError, ValueError):  # infinity or NaN, which Python's JSON reader accepts
        raise InvalidBody(f"{name} must be a whole number.", name) from None
