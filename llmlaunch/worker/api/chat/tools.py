"""The tools of a chat request, and whether the model must call them.

``worker.chat_template`` shows them to the model; calls in the answer are parsed by ``worker.output.tool_calls``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.api.chat.tool_choice import read_choice
from llmlaunch.worker.api.generation.requests import CallsOnly
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.output.tool_calls.types import Tools
from llmlaunch.worker.types import FunctionSchema

NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
"""The parameters of a function that has none."""


@dataclass(frozen=True, slots=True)
class Toolset:
    """The validated tools of one request, and its tool_choice."""

    tools: tuple[dict[str, Any], ...] = ()
    required: bool = False
    """Whether the answer must consist of calls."""
    named: str = ""
    """The only function that may be called; empty: any of them."""
    parallel: bool = True
    """Whether an answer may have several calls."""
    old: bool = False
    """Whether they came as ``functions``: then the answer has a ``function_call``."""

    @property
    def active(self) -> bool:
        """Whether the model may call tools."""
        return bool(self.tools)

    @property
    def parameters(self) -> Tools:
        """The JSON schemas of the functions' parameters, by the functions' names."""
        functions = [tool["function"] for tool in self.tools]
        return {function["name"]: function.get("parameters") or {} for function in functions}

    def described(self) -> list[dict[str, Any]]:
        """Return the tools for the chat template: each with parameters, because templates do not ask whether it has any."""
        return [
            tool
            | {"function": {**tool["function"], "parameters": tool["function"].get("parameters") or NOTHING}}
            for tool in self.tools
        ]

    def calls_only(self) -> CallsOnly | None:
        """Return the calls that the answer must consist of; None if the model decides."""
        if not self.required:
            return None
        functions = [tool["function"] for tool in self.tools]
        return CallsOnly(
            tuple(
                FunctionSchema(f["name"], f.get("parameters"), strict=f.get("strict") is True)
                for f in functions
                if not self.named or f["name"] == self.named
            ),
            single=bool(self.named) or not self.parallel,
        )


def read(body: ChatBody) -> Toolset:
    """Return the tools that ``body`` offers, in today's fields or in the old ones. Raises BadRequest."""
    old = bool(body.functions) or (body.function_call is not None and not body.tools)
    if old and body.tools:
        raise BadRequest("tools and functions exclude each other", param="functions")
    given = [{"type": "function", "function": f} for f in body.functions or ()] if old else body.tools or []
    choice = read_choice(body.function_call, "function_call") if old else read_choice(body.tool_choice)
    param, where = ("function_call", "functions") if old else ("tool_choice", "tools")
    if not given:
        if choice.mode == "required":
            raise BadRequest(f"{param} needs {where}", param=param)
        return Toolset()
    tools = tuple(_checked(tool, f"{where}[{index}]", where) for index, tool in enumerate(given))
    names = [tool["function"]["name"] for tool in tools]
    if len(set(names)) != len(names):
        raise BadRequest(f"{where}: duplicate function name", param=where)
    if choice.mode == "none":
        return Toolset()
    for name in (*(choice.allowed or ()), choice.named):
        if name and name not in names:
            raise BadRequest(f"{param}: {name!r} is not one of the {where}", param=param)
    return Toolset(
        tools=tuple(t for t in tools if choice.allowed is None or t["function"]["name"] in choice.allowed),
        required=choice.mode == "required",
        named=choice.named,
        parallel=body.parallel_tool_calls is not False and not old,
        old=old,
    )


def _checked(tool: dict[str, Any], where: str, param: str) -> dict[str, Any]:
    """``tool`` without nulls. Raises BadRequest."""
    function = tool.get("function")
    if tool.get("type") not in ("function", None) or not isinstance(function, dict):
        raise BadRequest(f'{where} must be {{"type": "function", "function": {{…}}}}', param=param)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest(f"{where}.function.name is missing", param=param)
    if not isinstance(function.get("parameters") or {}, dict):
        raise BadRequest(f"{where}: the parameters of {name!r} must be a JSON schema", param=param)
    if not isinstance(function.get("strict") or False, bool):
        raise BadRequest(f"{where}: strict of {name!r} must be true or false", param=param)
    given = {key: value for key, value in function.items() if value is not None}
    return {key: value for key, value in tool.items() if value is not None} | {
        "type": "function",
        "function": given,
    }
