"""Finds the ``model`` of a request's body, without parsing all of it where that is safe. Pure.

Safe means: for every body that is valid JSON the result is that of ``json.loads``, where the last of several equal keys
counts, as it does in the engines. The fast path may accept a body that is invalid somewhere else. Such a body reaches a
worker, which refuses it with a 400 of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

SHORT = 2048
"""Bytes up to which parsing the whole body is cheaper than the fast path. The fast path looks that far from either end."""
# The key ``"model"`` is these seven bytes, unless it is written with escapes (its five letters are all \\u006x). In valid
# JSON the seven bytes are always a whole string, unless the first quote is escaped.
_KEY = b'"model"'
_ESCAPED_LETTER = b"\\u006"
_BACKSLASH = 0x5C
_DECODER = json.JSONDecoder()


class InvalidBody(ValueError):
    """The body cannot be used. ``param`` names the parameter at fault; None: the body as a whole."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def model_of(body: bytes) -> str:
    """The top-level ``model`` of a JSON object. Raises InvalidBody if it is missing or the body is not valid."""
    if len(body) > SHORT:
        found = _fast_path(body)
        if found is not None:
            return found
    return _name(parse(body))


_PREVIOUS, _REFERENCE = b"previous_response_id", b"item_reference"
# A reference may lack its type: an object with an id alone. In valid JSON the bytes cannot stand inside a string.
_ONLY_ID = re.compile(rb'\{"id": ?"[a-z]+_[0-9a-f]+"\}')


def referred_to(body: bytes) -> Iterator[str]:
    """The ids of responses and items that a body for /v1/responses refers to, the ``previous_response_id`` first."""
    if body.rfind(_PREVIOUS) < 0 and body.rfind(_REFERENCE) < 0 and _ONLY_ID.search(body) is None:
        return
    try:
        value = parse(body)
    except InvalidBody:  # the worker will refuse it
        return
    previous, items = value.get(_PREVIOUS.decode()), value.get("input")
    if isinstance(previous, str):
        yield previous
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("type") in (_REFERENCE.decode(), None) and "role" not in item:
            identity = item.get("id")
            if isinstance(identity, str):
                yield identity


_STREAM = b'"stream"'
_IS_TRUE = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*true\b")


def asks_for_stream(body: bytes) -> bool:
    """Whether ``body`` asks for a stream. A guess: the key may belong to a nested object."""
    at = body.find(_STREAM)
    while at >= 0:
        at += len(_STREAM)
        if _IS_TRUE.match(body, at):
            return True
        at = body.find(_STREAM, at)
    return False


def model_of_prompts(body: bytes) -> str:
    """The ``model`` that all ``prompts`` of FastChat's token_check have in common. Raises InvalidBody."""
    prompts = parse(body).get("prompts")
    if not isinstance(prompts, list) or not prompts or not all(isinstance(item, dict) for item in prompts):
        raise InvalidBody("prompts must be a non-empty list of objects.", "prompts")
    names = {_name(item) for item in prompts}
    if len(names) > 1:
        raise InvalidBody("All prompts must name the same model; send one request for each.", "prompts")
    return names.pop()


def parse(body: bytes) -> dict[str, object]:
    """``body`` as a JSON object. Raises InvalidBody."""
    if not body:
        raise InvalidBody("The request has no body; a JSON object was expected.")
    try:
        # json.loads would also accept UTF-16 and UTF-32, which the engines do not.
        value = _loads(body.decode())
    except UnicodeDecodeError as error:
        raise InvalidBody(f"The body is not UTF-8: byte {error.start} is not valid.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidBody(f"The body is not valid JSON: {error.msg} at {where}.") from None
    except RecursionError:
        raise InvalidBody("The body is nested too deeply.") from None
    except ValueError as error:  # an integer of thousands of digits
        raise InvalidBody(f"The body cannot be read: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidBody("The body must be a JSON object.")
    return value


def _loads(text: str) -> Any:
    """Like json.loads, but faster when there is no white space around the value."""
    try:
        value, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError:
        end = -1
    return value if end == len(text) else json.loads(text)


def with_model(body: bytes, model: str) -> bytes:
    """``body`` with its top-level ``model`` set to ``model``. Raises InvalidBody."""
    value = parse(body)
    value["model"] = model
    return dump(value)


def dump(value: object) -> bytes:
    """``value`` as compact JSON in UTF-8. A lone surrogate, which UTF-8 cannot encode, is written as an escape."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def _name(value: dict[str, object]) -> str:
    if "model" not in value:
        raise InvalidBody("You must provide a model parameter.", "model")
    model = value["model"]
    if not isinstance(model, str):
        raise InvalidBody(f"model must be a string, not {_kind(model)}.", "model")
    if not model:
        raise InvalidBody("model must not be empty.", "model")
    return model


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", list: "an array"}
    return names.get(type(value), "an object")


def _fast_path(body: bytes) -> str | None:
    """The model if a short part at either end of the body determines it, else None."""
    found = _from_the_end(body) or _from_the_start(body)
    return found if isinstance(found, str) else None


def _from_the_end(body: bytes) -> object:
    """The value if ``model`` stands after the conversation. If the bytes from the key on, with a brace in front, are a
    JSON object, the key belongs to the outermost object, and it is the last one that counts."""
    at = body.rfind(_KEY, -SHORT - len(_KEY) if SHORT else len(body))
    if at < 1 or body[at - 1] == _BACKSLASH:
        return None
    try:
        return json.loads("{" + body[at:].decode())["model"]
    except (ValueError, RecursionError):
        return None


def _from_the_start(body: bytes) -> object:
    """The value if ``model`` stands first. If the bytes before the key, with an empty member and a brace behind them, are
    a JSON object, the key belongs to the outermost object. There must be no second ``model`` after it."""
    at = body.find(_KEY, 0, SHORT)
    # In CPython rfind is several times faster on bytes than find and ``in``.
    if at < 1 or body[at - 1] == _BACKSLASH or body.rfind(_KEY) != at or body.rfind(_ESCAPED_LETTER) >= 0:
        return None
    try:
        json.loads(body[:at].decode() + '"":0}')
        return _DECODER.raw_decode(_value_text(body[at:]))[0]
    except (ValueError, RecursionError):
        return None


_COLON = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\\x00-\x1f]|\\.){1,512}")')


def _value_text(after: bytes) -> str:
    found = _COLON.match(after)
    if found is None:
        raise ValueError("not a key with a string")
    return found[1].decode()
