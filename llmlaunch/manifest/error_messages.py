"""From pydantic's errors to sentences for people: what is wrong, what was expected, the nearest spelling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from llmlaunch.common.spelling import nearest
from llmlaunch.manifest.schema import DefaultsPart, ModelPart
from llmlaunch.manifest.yaml_document import Path, YamlDocument
from llmlaunch.manifest.yaml_scalars import typed

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
}
_OTHER_WORDS = {
    "aliases": "names",
    "binary": "bin",
    "cwd": "workdir",
    "env_files": "env_file",
    "executable": "bin",
    "gpu_num": "gpu_count",
    "interpreter": "python",
    "limit_worker_concurrency": "max_concurrency",
    "max_gpu_memory": "vram",
    "model_names": "names",
    "model_path": "model",
    "num_gpus": "gpu_count",
    "path": "model",
    "served_model_name": "names",
    "tensor_parallel_size": "gpu_count",
    "venv": "python",
    "virtualenv": "python",
    "working_dir": "workdir",
    "wrapper": "prefix",
}
"""What FastChat, vLLM and habit call a key."""
_SHOWN = 60


def explain(tree: YamlDocument, kind: type[BaseModel], prefix: Path, error: Mapping[str, Any]) -> None:
    """Add ``error``, one of pydantic's ``errors()`` about a ``kind`` at ``prefix``, to the tree's problems."""
    location = tuple(error["loc"])
    on_key = location[-1:] == ("[key]",)
    path: Path = (*prefix, *(location[:-1] if on_key else location))
    if tree.unreadable(path):
        return
    match error["type"]:
        case "extra_forbidden":
            _unknown_key(tree, kind, path)
        case "missing":
            tree.problem(path[:-1], f"the key {path[-1]!r} is missing", expected=_missing(path))
        case "manifest":
            _custom(tree, path, error, on_key)
        case "literal_error":
            choices = _choices(error["ctx"]["expected"])
            tree.problem(
                path,
                f"{_subject(tree, path, error['input'])} is not known",
                expected=f"{choices[0]}, the only one so far"
                if len(choices) == 1
                else "one of " + ", ".join(choices),
                suggestion=nearest(str(error["input"]), choices),
            )
        case "greater_than_equal" | "less_than_equal":
            expected = _range(path, error["ctx"])
            tree.problem(path, f"{_subject(tree, path, error['input'])} is out of range", expected=expected)
        case "too_short" | "string_too_short":
            tree.problem(path, f"{_name(path)} is empty", expected="at least one")
        case "string_pattern_mismatch":
            tree.problem(
                path, f"{_subject(tree, path, error['input'])} is not valid here", expected=_pattern(path)
            )
        case other:
            _wrong_type(tree, path, error["input"], _EXPECTED.get(other, ""))


def _unknown_key(tree: YamlDocument, kind: type[BaseModel], path: Path) -> None:
    key, valid = str(path[-1]), tuple(kind.model_fields)
    if kind is DefaultsPart and key in ModelPart.model_fields:
        tree.problem(path, f"{key} belongs to one model and cannot be a default", key=True)
        return
    other = _OTHER_WORDS.get(key.lower().replace("-", "_"), "")
    near = other if other in valid else nearest(key, valid)
    expected = "" if near else "one of " + ", ".join(sorted(valid))
    tree.problem(path, f"unknown key {_shown(key)}", key=True, expected=expected, suggestion=near)


def _custom(tree: YamlDocument, path: Path, error: Mapping[str, Any], on_key: bool) -> None:
    context, value = error["ctx"], error["input"]
    if context["index"] is not None and isinstance(value, list):
        path, value = (*path, context["index"]), value[context["index"]]
    elif context["index"] is not None and isinstance(value, str):
        value = value.split(",")[context["index"]].strip()
    if on_key:
        subject = f"the key {_shown(str(path[-1]))}"
    elif path[-2:-1] == ("env",):
        subject = _name(path)
    else:
        subject = _subject(tree, path, value)
    suggestion = nearest(value, context["choices"]) if isinstance(value, str) else ""
    message = f"{subject} {context['predicate']}"
    tree.problem(path, message, expected=context["expected"], suggestion=suggestion, key=on_key)


def _wrong_type(tree: YamlDocument, path: Path, value: object, expected: str) -> None:
    if expected == "a list" and path[-1] in (
        "names",
        "cors_origins",
        "allowed_hosts",
        "trusted_proxies",
        "env_file",
    ):
        expected = "text, or a list of texts"
    if isinstance(value, str) and expected in ("a whole number", "true or false"):
        without = typed(value)
        if isinstance(without, bool if expected == "true or false" else int):
            expected += ", without quotes"
    if isinstance(value, bool | int | float) and expected == "text":
        expected += ", in quotes if that is meant"
    what = "of the wrong kind, from the environment" if tree.hidden(path) else _kind(value)
    tree.problem(path, f"{_name(path)} is {what}", expected=expected)


def _name(path: Path) -> str:
    """The key, or "item 2 of names"."""
    if not path:
        return "the manifest"
    return str(path[-1]) if isinstance(path[-1], str) else f"item {path[-1] + 1} of {path[-2]}"


def _subject(tree: YamlDocument, path: Path, value: object) -> str:
    """What a predicate may follow: "port is 0, which". The value itself is left out when it is long or came from the environment."""
    if tree.hidden(path):
        return f"{_name(path)} has a value from the environment that"
    if isinstance(value, list | dict):
        return _name(path)
    return f"{_name(path)} is {_shown(value)}, which"


def _missing(path: Path) -> str:
    return "model: with a folder, a GGUF file or a hub's id" if path[-1] == "model" else ""


def _range(path: Path, context: Mapping[str, Any]) -> str:
    if path[-1] == "port":
        return "1 to 65535; leave port out for the next free one"
    return f"{context['ge']} or more" if "ge" in context else f"{context['le']} or less"


def _pattern(path: Path) -> str:
    return "letters, digits and _"


def _choices(text: str) -> list[str]:
    """pydantic writes ``'a', 'b' or 'c'``."""
    return [part.strip(" '") for part in text.replace(" or ", ", ").split(",")]


def _shown(value: object) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _kind(value: object) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return f"{_shown(value)} (a boolean)"
        case int() | float():
            return f"the number {_shown(value)}"
        case str():
            return f"the text {_shown(value)}"
        case list():
            return "a list"
    return "a mapping"
