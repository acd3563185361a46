"""What a chat request says of the calls in its answer: ``tool_choice``, or the older ``function_call``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmlaunch.worker.errors import BadRequest


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """A tool_choice or function_call."""

    mode: str = "auto"
    """auto, none or required."""
    named: str = ""
    """The one function that must be called; empty: none is named."""
    allowed: frozenset[str] | None = None
    """The functions that may be called; None: all."""


def read_choice(given: str | dict[str, Any] | None, param: str = "tool_choice") -> ToolChoice:
    """Return what the parameter ``param`` asks for. Raises BadRequest."""
    if given is None:
        return ToolChoice()
    if isinstance(given, dict):
        if given.get("type") == "allowed_tools":
            return _allowed(given, param)
        return ToolChoice("required", named=_function_name(given, param))
    modes = ("auto", "none") if param == "function_call" else ("auto", "none", "required")
    if given not in modes:
        raise BadRequest(f"{param}: {given!r} is not {', '.join(modes)} or a function", param=param)
    return ToolChoice(given)


def _allowed(given: dict[str, Any], param: str) -> ToolChoice:
    """OpenAI's list of allowed tools: chat has it in an object of its own, the Responses API has not."""
    inner = given.get("allowed_tools")
    fields = inner if isinstance(inner, dict) else given
    mode, tools = fields.get("mode") or "auto", fields.get("tools")
    if mode not in ("auto", "required"):
        raise BadRequest(f"{param}: allowed_tools.mode must be auto or required, not {mode!r}", param=param)
    if not isinstance(tools, list) or not tools:
        raise BadRequest(f"{param}: allowed_tools.tools must be a list of tools", param=param)
    return ToolChoice(mode, allowed=frozenset(_function_name(tool, param) for tool in tools))


def _function_name(given: Any, param: str) -> str:
    """The name in ``{"type": "function", "function": {"name"}}``, or in the same without the inner object."""
    fields = given if isinstance(given, dict) else {}
    inner = fields.get("function")
    name = (inner if isinstance(inner, dict) else fields).get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest(f"{param} must be auto, none or the name of a function, in an object", param=param)
    return name
