"""The tools of a Responses body: functions are offered to the model, other kinds are skipped.

OpenAI runs web_search, code_interpreter and the like itself, and clients send them unasked. Nothing here could run them, and a
model that is not told of a tool does without it. Only a tool_choice that names one cannot be obeyed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.worker.errors import BadRequest

FUNCTION_FIELDS = ("name", "description", "parameters", "strict")
"""What the model is told of a function. Other fields are for OpenAI's own tools."""
MODES = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class Function:
    """A function as the client knows it. ``namespace``: the one that it was declared in; empty: none."""

    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The functions that the model may call, under the names that it calls them by."""

    tools: tuple[dict[str, Any], ...] = ()
    """In chat's format."""
    choice: str | dict[str, Any] | None = None
    """Chat's tool_choice."""
    functions: Mapping[str, Function] = field(default_factory=dict)
    """By the name in ``tools``: what the client calls the function."""
    declared: tuple[dict[str, Any], ...] = ()
    """The client's tools without those that were skipped, for the response."""

    def name_of(self, function: Function) -> str:
        """Return the name under which ``function`` is offered; its own if it is not offered."""
        return next((name for name, known in self.functions.items() if known == function), function.name)

    def function(self, name: str) -> Function:
        """Return what the client calls the function that the model called ``name``."""
        return self.functions.get(name) or Function(name)


def offered_tools(tools: Sequence[dict[str, Any]], choice: Any) -> OfferedTools:
    """Return the functions among ``tools``, as far as ``choice`` (the body's tool_choice) allows them. Raises BadRequest."""
    found = [
        (function, tool)
        for at, tool in enumerate(tools)
        for function, tool in _functions(tool, f"tools[{at}]")
    ]
    mode, allowed = _read_choice(choice, {function for function, _ in found}, _kinds(tools))
    found = [(function, tool) for function, tool in found if allowed is None or function in allowed]
    if mode == "required" and not found:
        why = f"none of the tools is a function, {_listed(_kinds(tools))}" if tools else "there are no tools"
        raise BadRequest(
            f"tool_choice: a call is required, but {why}", param="tool_choice", code="unsupported"
        )
    names = [function.name for function, _ in found]
    offered: dict[str, Function] = {}
    chat_tools = []
    for function, tool in found:
        # Two namespaces may each have a function of that name.
        name = function.name
        if function.namespace and names.count(name) > 1:
            name = f"{function.namespace}__{name}"
        if name in offered:
            raise BadRequest(f"tools: duplicate function name {name!r}", param="tools")
        offered[name] = function
        chat_tools.append({"type": "function", "function": tool | {"name": name}})
    forced = mode if isinstance(mode, str) or mode is None else _named(offered, mode)
    declared = tuple(_declared(tool) for tool in tools if _kind(tool) in ("function", "namespace"))
    return OfferedTools(tuple(chat_tools), forced if found or forced == "none" else None, offered, declared)


def _named(offered: Mapping[str, Function], function: Function) -> dict[str, Any]:
    name = next(name for name, known in offered.items() if known == function)
    return {"type": "function", "function": {"name": name}}


def _functions(tool: dict[str, Any], where: str) -> list[tuple[Function, dict[str, Any]]]:
    """The functions that ``tool`` is or has, each with chat's ``function`` object."""
    kind = _kind(tool)
    if kind is None:
        raise BadRequest(f"{where}.type must be a string, such as 'function'", param="tools")
    if kind == "function":
        function = _function_object(tool, where)
        return [(Function(function["name"]), function)]
    if kind != "namespace":
        return []
    namespace, members = tool.get("name"), tool.get("tools")
    if not isinstance(namespace, str) or not isinstance(members, list):
        raise BadRequest(f"{where} must have a name and a list of tools", param="tools")
    found = []
    for at, member in enumerate(members):
        if not isinstance(member, dict):
            raise BadRequest(f"{where}.tools[{at}] must be an object", param="tools")
        if _kind(member) == "function":
            function = _function_object(member, f"{where}.tools[{at}]")
            found.append((Function(function["name"], namespace), function))
    return found


def _function_object(tool: dict[str, Any], where: str) -> dict[str, Any]:
    # Chat's format, which many clients send here, too, has the fields one level deeper.
    fields = tool["function"] if isinstance(tool.get("function"), dict) else tool
    name = fields.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest(f"{where}.name is missing", param="tools")
    return {field: fields[field] for field in FUNCTION_FIELDS if fields.get(field) is not None}


def _kind(tool: Mapping[str, Any]) -> str | None:
    kind = tool.get("type")
    if kind is None and (isinstance(tool.get("name"), str) or isinstance(tool.get("function"), dict)):
        return "function"
    return kind if isinstance(kind, str) else None


def _kinds(tools: Sequence[dict[str, Any]]) -> set[str]:
    return {kind for tool in tools if (kind := _kind(tool)) not in ("function", "namespace", None)}


def _listed(kinds: set[str]) -> str:
    return "and this engine has no " + ", ".join(sorted(kinds)) if kinds else "so there is nothing to call"


Mode = str | Function | None


def _read_choice(choice: Any, known: set[Function], skipped: set[str]) -> tuple[Mode, set[Function] | None]:
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
    if kind not in ("function", None):
        raise _invalid(
            f"tool_choice: {kind!r} is not supported by this engine, only functions are", "unsupported"
        )
    named = _find(choice, known)
    if not named:
        raise _invalid(f"tool_choice: {_name(choice)!r} is not one of the functions in tools")
    return next(iter(named)), None


def _read_allowed(choice: dict[str, Any], known: set[Function]) -> tuple[Mode, set[Function]]:
    # Chat's format has the fields one level deeper.
    fields = choice["allowed_tools"] if isinstance(choice.get("allowed_tools"), dict) else choice
    mode, tools = fields.get("mode", "auto"), fields.get("tools")
    if mode not in ("auto", "required"):
        raise _invalid(f"tool_choice.mode: {mode!r} is not auto or required")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise _invalid("tool_choice.tools must be a list of tools")
    allowed: set[Function] = set()
    for tool in tools:
        found = _find(tool, known)
        if not found and _kind(tool) == "function":
            raise _invalid(f"tool_choice: {_name(tool)!r} is not one of the functions in tools")
        allowed |= found
    return mode, allowed


def _find(named: Mapping[str, Any], known: set[Function]) -> set[Function]:
    """The functions that an entry of tool_choice names: one, or all of a namespace."""
    name, namespace = _name(named), named.get("namespace")
    if _kind(named) == "namespace":
        return {function for function in known if function.namespace == name}
    if _kind(named) != "function":
        return set()
    found = {function for function in known if function.name == name}
    return {function for function in found if namespace is None or function.namespace == namespace}


def _name(named: Mapping[str, Any]) -> Any:
    function = named.get("function")
    return function.get("name") if isinstance(function, dict) else named.get("name")


def _invalid(message: str, code: str | None = None) -> BadRequest:
    return BadRequest(message, param="tool_choice", code=code)


def _declared(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as a response has it, with all fields of OpenAI's own."""
    if _kind(tool) == "namespace":
        return tool
    function = tool.get("function")
    flat = function if isinstance(function, dict) else tool
    return {"parameters": None, "strict": None} | flat | {"type": "function"}
