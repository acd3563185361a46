"""Brings clients' JSON schemas into a form that the grammar library reads. Pure.

Schemas are those of https://json-schema.org/draft/2020-12 and earlier drafts, as libraries and people write them: with
``null`` for what is not set, with definitions that ``$ref`` points to, and with words that no grammar can express.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from llmlaunch.worker.types import FunctionSchema

Schema = dict[str, Any]

_INSTANCES = frozenset({"const", "default", "enum", "example", "examples"})
"""Keywords whose values are data, not schemas."""
_SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose values are objects of schemas, under names of the client's."""
_MEANT_NULL = frozenset({"const", "default"})
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_FRAGMENT = "/%~!$&'()*+,;=:@?-._"
"""Characters that RFC 3986 allows in the fragment of a URI, beside letters and digits."""


def normalized(schema: Schema, root: str = "") -> Schema:
    """Return ``schema`` without nulls and ``$schema``; ``root``: the JSON pointer of the place where it will be put.

    References within it then point there, so schemas of several functions may have definitions of the same names.
    Raises RecursionError for a schema that is nested too deeply.
    """
    own = schema.get("$id")
    uri = own.rstrip("#") if isinstance(own, str) else ""
    return _normalized({key: value for key, value in schema.items() if key != "$id"}, uri, root)


def _normalized(schema: Schema, uri: str, root: str) -> Schema:
    if isinstance(schema.get("$id"), str):  # references within it point into itself
        return schema
    clean: Schema = {}
    for key, value in schema.items():
        if key in _INSTANCES:
            if value is not None or key in _MEANT_NULL:
                clean[key] = value
        elif key == "$ref" and isinstance(value, str):
            clean[key] = _moved_reference(value, uri, root)
        elif key in _COUNTS and isinstance(value, float) and value.is_integer():
            clean[key] = int(value)
        elif key in _SCHEMAS_BY_NAME and isinstance(value, dict):
            clean[key] = {
                name: {} if part is None else _part(part, uri, root) for name, part in value.items()
            }
        elif value is not None and key != "$schema":
            clean[key] = _part(value, uri, root)
    return clean


def _part(value: Any, uri: str, root: str) -> Any:
    if isinstance(value, dict):
        return _normalized(value, uri, root)
    return [_part(item, uri, root) for item in value] if isinstance(value, list) else value


def _moved_reference(reference: str, uri: str, root: str) -> str:
    """``reference``, from a schema that calls itself ``uri``, once that lies at the pointer ``root``."""
    before, _, fragment = reference.partition("#")
    if before and before != uri:
        return reference
    pointer = quote(fragment, safe=_FRAGMENT)
    return f"#{root}{pointer}" if not fragment or fragment.startswith("/") else f"#{pointer}"


def is_remote(reference: object) -> bool:
    """Whether a ``$ref`` points out of its document."""
    return isinstance(reference, str) and not reference.startswith("#")


def calls_schema(functions: Sequence[FunctionSchema], *, single: bool) -> Schema:
    """Return the schema of a list of calls, each ``{"name", "arguments"}``; ``single``: of exactly one."""
    forms = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function.name},
                "arguments": _arguments(function, f"/items/anyOf/{at}/properties/arguments"),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for at, function in enumerate(functions)
    ]
    return {"type": "array", "items": {"anyOf": forms}, "minItems": 1} | ({"maxItems": 1} if single else {})


def _arguments(function: FunctionSchema, pointer: str) -> Schema:
    if function.parameters is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    return {"type": "object"} | normalized(function.parameters, pointer)


def without(schema: Schema, bad_pattern: Callable[[str], bool]) -> tuple[Schema, list[str]]:
    """Return ``schema`` without the patterns that ``bad_pattern`` names and without references to other documents.

    Also returns what was left out, in words.
    """
    left_out: list[str] = []
    return _without(schema, bad_pattern, left_out), list(dict.fromkeys(left_out))


def _without(schema: Schema, bad_pattern: Callable[[str], bool], left_out: list[str]) -> Schema:
    kept: Schema = {}
    opened = False
    for key, value in schema.items():
        if key in _INSTANCES:
            kept[key] = value
        elif key == "pattern" and isinstance(value, str) and bad_pattern(value):
            left_out.append(f"pattern {shortened(value)}")
        elif key == "$ref" and is_remote(value):
            left_out.append(f"$ref {shortened(value)}")
        elif key in _SCHEMAS_BY_NAME and isinstance(value, dict):
            bad = [name for name in value if key == "patternProperties" and bad_pattern(name)]
            left_out += [f"patternProperties {shortened(name)}" for name in bad]
            opened = opened or bool(bad)
            kept[key] = {
                name: _part_without(part, bad_pattern, left_out)
                for name, part in value.items()
                if name not in bad
            }
        else:
            kept[key] = _part_without(value, bad_pattern, left_out)
    if opened:  # what such a pattern allowed must not become forbidden
        kept.pop("additionalProperties", None)
    return kept


def _part_without(value: Any, bad_pattern: Callable[[str], bool], left_out: list[str]) -> Any:
    if isinstance(value, dict):
        return _without(value, bad_pattern, left_out)
    if isinstance(value, list):
        return [_part_without(item, bad_pattern, left_out) for item in value]
    return value


def shortened(text: str, most: int = 60) -> str:
    """Return ``text`` on one line and in quotes, up to ``most`` characters of it."""
    return repr(text if len(text) <= most else text[: most - 1] + "…")
