"""Look-ups in what a model's files say, for which a value of a wrong type is an absent one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def integer(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first positive whole number under these keys; of a list (one value a layer) the largest."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, list):
            value = max((v for v in value if type(v) is int), default=None)
        if type(value) is int and 0 < value < 1 << 48:
            return value
    return None


def names(value: Any) -> list[str]:
    """The texts in ``value``, if it is a list."""
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def numbers(value: Any) -> list[int]:
    """``value`` if it is a list of whole numbers or of true and false, else an empty list."""
    if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
        return []
    return [int(item) for item in value]


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` if it is a dictionary, else an empty one."""
    return value if isinstance(value, dict) else {}
