"""The tools of a chat request: how they are described to the model, and whether it must call them.

Calls in the answer are parsed by ``worker.output.tool_calls``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.output.tool_calls.types import Tools

INSTRUCTION = """You may call functions to help the user. These are there, each with a JSON schema of its parameters:
<tools>
{tools}
</tools>
To call one, answer with nothing but this, once for each call:
<tool_call>
{{"name": "function name", "arguments": {{"parameter": "value"}}}}
</tool_call>"""


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

    @property
    def active(self) -> bool:
        """Whether the model may call tools."""
        return bool(self.tools)

    @property
    def parameters(self) -> Tools:
        """The JSON schemas of the functions' parameters, by the functions' names."""
        functions = [tool["function"] for tool in self.tools]
        return {function["name"]: function.get("parameters") or {} for function in functions}

    def schema(self) -> dict[str, Any] | None:
        """Return the JSON schema of an answer that must be a list of calls; None if the model decides."""
        if not self.required:
            return None
        functions = [tool["function"] for tool in self.tools]
        forms = [
            {
                "type": "object",
                "properties": {
                    "name": {"const": function["name"]},
                    "arguments": function.get("parameters") or {"type": "object"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for function in functions
            if not self.named or function["name"] == self.named
        ]
        once = {"maxItems": 1} if self.named or not self.parallel else {}
        return {"type": "array", "items": {"anyOf": forms}, "minItems": 1, **once}


def read(body: ChatBody) -> Toolset:
    """Return the tools that ``body`` offers. Raises BadRequest."""
    choice = body.tool_choice if body.tool_choice is not None else "auto"
    if not body.tools:
        if choice not in ("auto", "none"):
            raise BadRequest("tool_choice needs tools", param="tool_choice")
        return Toolset()
    names = [_checked_name(tool, index) for index, tool in enumerate(body.tools)]
    if len(set(names)) != len(names):
        raise BadRequest("tools: duplicate function name", param="tools")
    if choice == "none":
        return Toolset()
    named = ""
    if isinstance(choice, dict):
        function = choice.get("function")
        named = function.get("name", "") if isinstance(function, dict) else ""
        if named not in names:
            raise BadRequest(f"tool_choice: {named!r} is not one of the tools", param="tool_choice")
    elif choice not in ("auto", "required"):
        raise BadRequest(
            f"tool_choice: {choice!r} is not auto, none, required or a function", param="tool_choice"
        )
    return Toolset(
        tools=tuple(body.tools),
        required=choice == "required" or bool(named),
        named=named,
        parallel=body.parallel_tool_calls is not False,
    )


def _checked_name(tool: dict[str, Any], index: int) -> str:
    where = f"tools[{index}]"
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        raise BadRequest(f'{where} must be {{"type": "function", "function": {{…}}}}', param="tools")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest(f"{where}.function.name is missing", param="tools")
    if not isinstance(function.get("parameters", {}), dict):
        raise BadRequest(f"{where}.function.parameters must be a JSON schema", param="tools")
    return name


def for_template(
    messages: Sequence[dict[str, Any]], tools: Toolset, *, known: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return messages and arguments for a chat template; ``known``: whether the template supports tools.

    If it does not, the tools are described in the system message, and earlier calls and results become text.
    """
    if known:
        arguments = {"tools": list(tools.tools)} if tools.active else {}
        return [_with_argument_objects(message) for message in messages], arguments
    plain = [_as_text(message) for message in messages]
    if tools.active:
        listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools.tools)
        text = INSTRUCTION.format(tools=listed)
        if plain and plain[0]["role"] == "system":
            plain[0] = plain[0] | {"content": f"{plain[0]['content']}\n\n{text}"}
        else:
            plain.insert(0, {"role": "system", "content": text})
    return plain, {}


def _with_argument_objects(message: dict[str, Any]) -> dict[str, Any]:
    """Templates serialize arguments themselves, so OpenAI's JSON strings become objects."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = dict(call.get("function") or {}) if isinstance(call, dict) else {}
        function["arguments"] = _object(function.get("arguments"))
        calls.append((call if isinstance(call, dict) else {}) | {"function": function})
    return message | {"tool_calls": calls}


def _object(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _as_text(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] in ("tool", "function"):
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    if not message.get("tool_calls"):
        return message
    texts = [message["content"]] if message["content"] else []
    for call in _with_argument_objects(message)["tool_calls"]:
        function = call["function"]
        written = {"name": function.get("name"), "arguments": function["arguments"]}
        texts.append(f"<tool_call>\n{json.dumps(written, ensure_ascii=False)}\n</tool_call>")
    return {"role": "assistant", "content": "\n".join(texts)}
