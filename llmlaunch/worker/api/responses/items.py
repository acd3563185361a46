"""Translates a Responses body into a chat body: items become messages. Errors name the parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from llmlaunch.worker.api.chat.protocol import ChatBody, Message, ReasoningEffort
from llmlaunch.worker.api.protocol import GenerationBody
from llmlaunch.worker.api.responses.protocol import ResponsesBody
from llmlaunch.worker.errors import BadRequest

ROLES = ("system", "developer", "user", "assistant")
TEXT_PARTS = ("input_text", "output_text", "text", "refusal")
LOGPROBS_INCLUDED = "message.output_text.logprobs"


def chat_body(body: ResponsesBody, messages: Sequence[dict[str, Any]]) -> ChatBody:
    """Return ``body`` as a chat body with ``messages``. Raises BadRequest."""
    shared = {name: getattr(body, name) for name in GenerationBody.model_fields}
    instructions = [{"role": "system", "content": body.instructions}] if body.instructions else []
    reasoning = body.reasoning or {}
    return ChatBody.model_validate(
        shared
        | {
            "messages": [Message.model_validate(message) for message in [*instructions, *messages]],
            "max_completion_tokens": body.max_output_tokens,
            "response_format": response_format(body),
            "tools": [_tool(tool, at) for at, tool in enumerate(body.tools or ())] or None,
            "tool_choice": _tool_choice(body),
            "parallel_tool_calls": body.parallel_tool_calls,
            "logprobs": wants_logprobs(body) or None,
            "top_logprobs": body.top_logprobs,
            "reasoning_effort": _effort(reasoning),
            "chat_template_kwargs": body.chat_template_kwargs,
        }
    )


def wants_logprobs(body: ResponsesBody) -> bool:
    """Return whether ``body`` asks for logprobs, by either of OpenAI's two ways."""
    return body.top_logprobs is not None or LOGPROBS_INCLUDED in (body.include or ())


def check_supported(body: ResponsesBody) -> None:
    """Raises BadRequest for unsupported parameters."""
    for name in ("background", "conversation", "prompt"):
        if getattr(body, name):
            raise BadRequest(f"{name} is not supported by this engine", param=name, code="unsupported")
    if (body.n or 1) > 1:
        raise BadRequest("n must be 1 in a response; use /v1/chat/completions for several answers", param="n")


def messages(given: str | Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ``input`` as messages. Raises BadRequest for items that a text model does not support."""
    if isinstance(given, str):
        if not given:
            raise BadRequest("input is empty", param="input")
        return [{"role": "user", "content": given}]
    if not given:
        raise BadRequest("input is empty", param="input")
    found: list[dict[str, Any]] = []
    for at, item in enumerate(given):
        _add_item(found, item, f"input[{at}]")
    if not found:
        raise BadRequest("input contains no messages", param="input")
    return found


def _add_item(found: list[dict[str, Any]], item: dict[str, Any], where: str) -> None:
    kind = item.get("type") or ("message" if "role" in item else None)
    if kind == "message":
        role = item.get("role")
        if role not in ROLES:
            raise BadRequest(f"{where}.role: {role!r} is not one of {', '.join(ROLES)}", param="input")
        found.append({"role": role, "content": _text(item.get("content"), f"{where}.content")})
    elif kind == "function_call":
        names = ("call_id", "name", "arguments")
        call_id, name, arguments = (_string(item, field, where) for field in names)
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        # The calls of one turn are separate items here, but one message in chat.
        if found and found[-1]["role"] == "assistant":
            found[-1] = found[-1] | {"tool_calls": [*found[-1].get("tool_calls", ()), call]}
        else:
            found.append({"role": "assistant", "content": "", "tool_calls": [call]})
    elif kind == "function_call_output":
        content = _text(item.get("output"), f"{where}.output")
        found.append({"role": "tool", "tool_call_id": _string(item, "call_id", where), "content": content})
    elif kind != "reasoning":  # reasoning of earlier turns is dropped, as chat templates do
        raise BadRequest(f"{where}: items of type {kind!r} are not supported by this engine", param="input")


def _string(item: dict[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"{where}.{name} must be a string", param="input")
    return value


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(f"{where} must be a string or a list of parts", param="input")
    texts = []
    for at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in TEXT_PARTS:
            raise BadRequest(f"{where}[{at}]: this model only supports text, not {kind!r}", param="input")
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise BadRequest(f"{where}[{at}].text must be a string", param="input")
        texts.append(text)
    return "".join(texts)


def response_format(body: ResponsesBody) -> dict[str, Any] | None:
    """Return ``text.format`` as chat's response_format. Raises BadRequest."""
    given = (body.text or {}).get("format")
    if given is None:
        return body.response_format
    if not isinstance(given, dict):
        raise BadRequest("text.format must be an object with a type", param="text.format")
    if given.get("type") != "json_schema":
        return given
    return {"type": "json_schema", "json_schema": {k: v for k, v in given.items() if k != "type"}}


def _tool(tool: dict[str, Any], at: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        kind = tool.get("type")
        raise BadRequest(
            f"tools[{at}]: {kind!r} is not supported by this engine, only functions are",
            param="tools",
            code="unsupported",
        )
    if isinstance(tool.get("function"), dict):  # chat's format, which many clients send here, too
        return tool
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type" and v is not None}}


def _tool_choice(body: ResponsesBody) -> str | dict[str, Any] | None:
    choice = body.tool_choice
    if not isinstance(choice, dict) or isinstance(choice.get("function"), dict):
        return choice
    if choice.get("type") != "function":
        raise BadRequest(
            f"tool_choice: {choice.get('type')!r} is not supported by this engine",
            param="tool_choice",
            code="unsupported",
        )
    return {"type": "function", "function": {"name": choice.get("name")}}


def _effort(reasoning: dict[str, Any]) -> str | None:
    effort = reasoning.get("effort")
    if effort is not None and effort not in get_args(ReasoningEffort):
        known = ", ".join(get_args(ReasoningEffort))
        raise BadRequest(f"reasoning.effort: {effort!r} is not one of {known}", param="reasoning")
    return effort
