"""Values of arguments that a model writes without JSON's types: the schema of the parameter says what they are. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmlaunch.worker.output.tool_calls.json_calls import parsed

_WORDS = {"true": True, "false": False}


def of_schema(text: str, name: str, parameters: Mapping[str, Any] | None) -> Any:
    """The value of ``text`` for the parameter ``name`` of a function with the schema ``parameters``.

    A string stays a string unless the schema has another type that the text fits.
    """
    properties = (parameters or {}).get("properties")
    schema = properties.get(name) if isinstance(properties, Mapping) else None
    kinds = set(_types(schema, parameters or {}, 0)) if isinstance(schema, Mapping) else set()
    if not kinds:
        value = parsed(text)
        return text if value is None and text.strip() != "null" else value
    for kind, read in _READERS:
        if kind in kinds:
            value = read(text.strip())
            if value is not _NONE:
                return value
    if "string" in kinds:
        return text
    # The text has none of the types: what it most probably means, as the client can see it.
    value = parsed(text)
    return text if value is None else value


def _types(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Iterator[str]:
    """JSON types that ``schema`` allows; nothing if it does not say."""
    if depth > 8:
        return
    kind = schema.get("type")
    yield from (
        [kind]
        if isinstance(kind, str)
        else [k for k in kind if isinstance(k, str)]
        if isinstance(kind, list)
        else []
    )
    for value in (
        (*schema.get("enum", ()), *((schema["const"],) if "const" in schema else ())) if kind is None else ()
    ):
        yield _name(value)
    for word in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(word) or ():
            if isinstance(part, Mapping):
                yield from _types(part, root, depth + 1)
    pointer = schema.get("$ref")
    if isinstance(pointer, str) and pointer.startswith("#/"):
        target: Any = root
        for step in pointer[2:].split("/"):
            target = target.get(step) if isinstance(target, Mapping) else None
        if isinstance(target, Mapping):
            yield from _types(target, root, depth + 1)
    if kind is None and "properties" in schema:
        yield "object"


def _name(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    names: dict[type, str] = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


_NONE = object()


def _null(text: str) -> Any:
    return None if text.lower() in ("null", "none") else _NONE


def _integer(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        pass
    value = _number(text)
    return int(value) if isinstance(value, float) and value.is_integer() else _NONE


def _number(text: str) -> Any:
    value = parsed(text)
    return (
        value if isinstance(value, int | float) and not isinstance(value, bool) and value == value else _NONE
    )


def _boolean(text: str) -> Any:
    return _WORDS.get(text.lower(), _NONE)


def _object(text: str) -> Any:
    value = parsed(text) if text.startswith("{") else None
    return value if isinstance(value, dict) else _NONE


def _array(text: str) -> Any:
    value = parsed(text) if text.startswith("[") else None
    return value if isinstance(value, list) else _NONE


_READERS = (
    ("null", _null),
    ("integer", _integer),
    ("number", _number),
    ("boolean", _boolean),
    ("object", _object),
    ("array", _array),
)
