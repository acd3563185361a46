"""Plain scalars by the core schema of YAML 1.2 (yaml.org/spec/1.2.2, section 10.3.2). Pure.

Only true and false are booleans, so that a model may be called ``no`` or ``on``; ``1:30`` is a text.
"""

from __future__ import annotations

import math
import re
from typing import Any

_MAX_DIGITS = 300  # beyond this Python itself refuses to convert, sooner or later
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULL = {"", "~", "null", "Null", "NULL"}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class FilledText(str):
    """A quoted text with a variable's value in it. Where a number belongs, :func:`typed` may still make it one."""

    __slots__ = ()


def typed(text: str) -> Any:
    """A plain scalar's value under the core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text) and any(c in text for c in ".eE"):
        number = float(text)
        # 1e999 stays a text: no engine could be told what Python makes of it.
        return number if math.isfinite(number) else text
    return text


def is_clean(text: str) -> bool:
    """Neither NUL, which no argv and no path can hold, nor half of a surrogate pair, which no file can."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
