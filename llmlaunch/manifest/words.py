"""From pydantic's errors to sentences for people: what is wrong, what was expected, the nearest spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from llmlaunch.manifest.tree import Path, Tree

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}
_SHOWN = 60


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice most like ``word``, or empty when none is near."""
    table = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), table, n=1, cutoff=0.6)
    return table[found[0]] if found else ""


def keys_at(model: type[BaseModel], location: Path) -> tuple[str, ...]:
    """The keys that are valid where ``location`` (without its last part) leads, from ``model`` down."""
    current: type[BaseModel] | None = model
    for part in location[:-1]:
        annotation = (
            current.model_fields[str(part)].annotation
            if current and str(part) in current.model_fields
            else None
        )
        current = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return tuple(current.model_fields) if current else ()


def explain(tree: Tree, model: type[BaseModel], prefix: Path, error: Mapping[str, Any]) -> None:
    """Add ``error`` (one of pydantic's ``errors()``) to the tree's problems."""
    location: Path = tuple(error["loc"])
    path = (*prefix, *location)
    name = str(path[-1]) if path and isinstance(path[-1], str) else ".".join(map(str, path[-2:]))
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        valid = keys_at(model, location)
        tree.problem(
            path, f"unknown key {name!r}", key=True,
            expected="one of " + ", ".join(sorted(valid)), suggestion=nearest(name, valid),
        )  # fmt: skip
        return
    if kind == "missing":
        tree.problem(path[:-1], f"the key {name!r} is missing")
        return
    if any(path[:end] in tree.from_environment for end in range(1, len(path) + 1)):
        shown = f"{name} has a value from the environment that"
    else:
        shown = f"{name} is {_show(error['input'])}, which"
    if kind == "manifest":
        text = context["message"]
        message = f"{name}{text}" if text.startswith(":") else f"{shown} {text}"
        tree.problem(path, message, expected=context["expected"])
    elif kind in _EXPECTED:
        found = _kind(error["input"])
        tree.problem(path, f"{name} is {found}", expected=_EXPECTED[kind])
    elif kind == "literal_error":
        choices = _choices(context["expected"])
        tree.problem(
            path, f"{shown} is not known", expected="one of " + ", ".join(choices),
            suggestion=nearest(str(error["input"]), choices),
        )  # fmt: skip
    elif kind in ("greater_than_equal", "less_than_equal"):
        tree.problem(path, f"{shown} is out of range", expected=_range(model, location, context))
    elif kind in ("too_short", "string_too_short"):
        tree.problem(path, f"{name} is empty", expected="at least one")
    else:
        tree.problem(path, f"{shown} is not valid here", expected=_fallback(kind, context))


def _fallback(kind: str, context: Mapping[str, Any]) -> str:
    if kind == "string_pattern_mismatch":
        return (
            "a path that starts with /"
            if context.get("pattern") == "^/"
            else "a name of letters, digits and _"
        )
    return ""


def _range(model: type[BaseModel], location: Path, context: Mapping[str, Any]) -> str:
    if location and location[-1] == "port":
        return "1 to 65535; leave port out for the next free one"
    if "ge" in context:
        return f"{context['ge']} or more"
    return f"{context['le']} or less"


def _choices(text: str) -> list[str]:
    """pydantic writes ``'a', 'b' or 'c'``."""
    return [part.strip(" '") for part in text.replace(" or ", ", ").split(",")]


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _kind(value: object) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return f"{str(value).lower()} (a boolean)"
        case int() | float():
            return f"the number {value}"
        case str():
            return "text"
        case list():
            return "a list"
    return "a mapping"
