"""The tools of a Responses body: functions and custom tools are offered to the model, other kinds are skipped.

A custom tool takes a text instead of JSON. Models are trained to call functions, so they get it as one with a single text.
OpenAI runs web_search, code_interpreter and the like itself, and clients send them unasked. Nothing here could run them, and a
model that is not told of a tool does without it. Only a tool_choice that names one cannot be obeyed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker.errors import BadRequest

FUNCTION_FIELDS = ("name", "description", "parameters", "strict")
"""What the model is told of a function. Other fields are for OpenAI's own tools."""
MODES = ("auto", "none", "required")
OFFERED = ("function", "custom", "namespace")
"""Kinds of tools that are, or have, functions."""
CALLABLE = ("function", "custom")
"""Kinds of tools that are called by their own name."""
INPUT = "input"
"""The one parameter of a custom tool."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function as the client knows it. ``namespace``: the one that it was declared in; empty: none."""

    name: str
    namespace: str = ""
    custom: bool = field(default=False, compare=False)
    """Whether it is a custom tool, which takes a text."""


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The functions that the model may call, under the names that it calls them by."""

    tools: tuple[dict[str, Any], ...] = ()
    """In chat's format."""
    choice: str | dict[str, Any] | None = None
    """Chat's tool_choice."""
    functions: Mapping[str, Function] = field(default_factory=dict)
    """By the name in ``tools``: what the client calls the function."""
    names: Mapping[Function, str] = field(default_factory=dict)
    """The reverse."""
    declared: tuple[dict[str, Any], ...] = ()
    """The client's tools without those that were skipped, for the response."""

    def name_of(self, function: Function) -> str:
        """Return the name under which ``function`` is offered; its own if it is not offered."""
        return self.names.get(function, function.name)

    def function(self, name: str) -> Function:
        """Return what the client calls the function that the model called ``name``."""
        return self.functions.get(name) or Function(name)


def offered_tools(tools: Sequence[dict[str, Any]], choice: Any) -> OfferedTools:
    """Return the functions among ``tools``, as far as ``choice`` (the body's tool_choice) allows them. Raises BadRequest."""
    found = [
        (function, fields)
        for at, tool in enumerate(tools)
        for function, fields in _functions(tool, f"tools[{at}]")
    ]
    mode, allowed = _read_choice(choice, _Known([function for function, _ in found]))
    found = [(function, fields) for function, fields in found if allowed is None or function in allowed]
    if mode == "required" and not found:
        raise _invalid(f"tool_choice: a call is required, but {_why_none(tools)}", "unsupported")
    counts = Counter(function.name for function, _ in found)
    functions: dict[str, Function] = {}
    chat_tools = []
    for function, fields in found:
        # Two namespaces may each have a function of that name.
        name = function.name
        if function.namespace and counts[name] > 1:
            name = f"{function.namespace}__{name}"
        if name in functions:
            raise BadRequest(f"tools: duplicate function name {name!r}", param="tools")
        functions[name] = function
        chat_tools.append({"type": "function", "function": fields | {"name": name}})
    names = {function: name for name, function in functions.items()}
    if isinstance(mode, Function):
        forced: Any = {"type": "function", "function": {"name": names[mode]}}
    else:
        forced = mode if found or mode == "none" else None
    declared = tuple(_declared(tool) for tool in tools if _kind(tool) in OFFERED)
    return OfferedTools(tuple(chat_tools), forced, functions, names, declared)


def _why_none(tools: Sequence[dict[str, Any]]) -> str:
    kinds = sorted({kind for tool in tools if (kind := _kind(tool)) and kind not in OFFERED})
    if not kinds:
        return "there is no function to call"
    return f"none of the tools is a function, and this engine has no {', '.join(kinds)}"


def _functions(tool: dict[str, Any], where: str) -> list[tuple[Function, dict[str, Any]]]:
    """The functions that ``tool`` is or has, each with chat's ``function`` object."""
    kind = _kind(tool)
    if kind is None:
        raise BadRequest(f"{where}.type must be a string, such as 'function'", param="tools")
    if kind in CALLABLE:
        return [_function(tool, where)]
    if kind != "namespace":
        return []
    namespace, members = tool.get("name"), tool.get("tools")
    if not isinstance(namespace, str) or not isinstance(members, list):
        raise BadRequest(f"{where} must have a name and a list of tools", param="tools")
    found = []
    for at, member in enumerate(members):
        if not isinstance(member, dict):
            raise BadRequest(f"{where}.tools[{at}] must be an object", param="tools")
        if _kind(member) in CALLABLE:
            found.append(_function(member, f"{where}.tools[{at}]", namespace))
    return found


def _function(tool: dict[str, Any], where: str, namespace: str = "") -> tuple[Function, dict[str, Any]]:
    fields = _fields(tool)
    name, custom = fields.get("name"), _kind(tool) == "custom"
    if not isinstance(name, str) or not name:
        raise BadRequest(f"{where}.name is missing", param="tools")
    told = _custom_fields(fields) if custom else fields
    told = {field: told[field] for field in FUNCTION_FIELDS if told.get(field) is not None}
    return Function(name, namespace, custom), told


def _fields(tool: dict[str, Any]) -> dict[str, Any]:
    """The fields of a function or custom tool. Chat's format, which many clients send here, too, has them one level deeper."""
    inner = tool.get(_kind(tool) or "function")
    return inner if isinstance(inner, dict) else tool


def _custom_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A custom tool as a function. A grammar of its text is only told: it holds for a part of a JSON string."""
    description = fields.get("description")
    text = description if isinstance(description, str) else ""
    form = fields.get("format")
    if isinstance(form, dict) and isinstance(form.get("definition"), str):
        text += f"\n\n{INPUT} must match this grammar ({form.get('syntax')}):\n{form['definition']}"
    parameters = {
        "type": "object",
        "properties": {
            INPUT: {"type": "string", "description": "The whole input of the tool, as plain text."}
        },
        "required": [INPUT],
        "additionalProperties": False,
    }
    return {"name": fields["name"], "description": text.strip() or None, "parameters": parameters}


def custom_input(arguments: str) -> str:
    """Return the text for a custom tool that the model called with ``arguments``; all of them if they are not as they should be."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    given = value.get(INPUT) if isinstance(value, dict) else value
    return given if isinstance(given, str) else arguments


def _kind(tool: Mapping[str, Any]) -> str | None:
    kind = tool.get("type")
    if kind is None and (isinstance(tool.get("name"), str) or isinstance(tool.get("function"), dict)):
        return "function"
    return kind if isinstance(kind, str) else None


class _Known:
    """The functions that a tool_choice may name."""

    def __init__(self, functions: Sequence[Function]) -> None:
        self._by_name: dict[str, list[Function]] = {}
        self._by_namespace: dict[str, list[Function]] = {}
        for function in functions:
            self._by_name.setdefault(function.name, []).append(function)
            self._by_namespace.setdefault(function.namespace, []).append(function)

    def named_by(self, entry: dict[str, Any]) -> list[Function]:
        """The functions that an entry of tool_choice names: one, or all of a namespace."""
        name, namespace = _name(entry), entry.get("namespace")
        if not isinstance(name, str) or _kind(entry) not in OFFERED:
            return []
        if _kind(entry) == "namespace":
            return self._by_namespace.get(name, []) if name else []
        found = self._by_name.get(name, [])
        return [function for function in found if namespace is None or function.namespace == namespace]


Mode = str | Function | None


def _read_choice(choice: Any, known: _Known) -> tuple[Mode, set[Function] | None]:
    """The mode or the function that ``choice`` asks for, and the functions that it allows; None: all."""
    if choice is None:
        return None, None
    if isinstance(choice, str):
        if choice not in MODES:
            raise _invalid(f"tool_choice: {choice!r} is not auto, none, required or a function")
        return choice, None
    kind = choice.get("type")
    if kind in MODES:
        return kind, None
    if kind == "allowed_tools":
        return _read_allowed(choice, known)
    if kind not in (*CALLABLE, None):
        raise _invalid(
            f"tool_choice: {kind!r} is not supported by this engine, only functions are", "unsupported"
        )
    named = known.named_by(choice)
    if not named:
        raise _invalid(f"tool_choice: {_name(choice)!r} is not one of the functions in tools")
    return named[0], None


def _read_allowed(choice: dict[str, Any], known: _Known) -> tuple[Mode, set[Function]]:
    # Chat's format has the fields one level deeper.
    fields = choice["allowed_tools"] if isinstance(choice.get("allowed_tools"), dict) else choice
    mode, tools = fields.get("mode") or "auto", fields.get("tools")
    if mode not in ("auto", "required"):
        raise _invalid(f"tool_choice.mode: {mode!r} is not auto or required")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise _invalid("tool_choice.tools must be a list of tools")
    allowed: set[Function] = set()
    for tool in tools:
        found = known.named_by(tool)
        if not found and _kind(tool) in CALLABLE:
            raise _invalid(f"tool_choice: {_name(tool)!r} is not one of the functions in tools")
        allowed.update(found)
    return mode, allowed


def _name(named: dict[str, Any]) -> Any:
    return _fields(named).get("name")


def _invalid(message: str, code: str | None = None) -> BadRequest:
    return BadRequest(message, param="tool_choice", code=code)


def _declared(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as a response has it, with all fields of OpenAI's own."""
    if _kind(tool) == "namespace":
        return tool
    flat = _fields(tool)
    if _kind(tool) == "custom":
        return {"format": {"type": "text"}} | flat | {"type": "custom"}
    return {"parameters": None, "strict": None} | flat | {"type": "function"}
