"""Checks the messages of a conversation. ``worker.chat_template`` brings them into the form that a template takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmlaunch.worker.api.chat.protocol import Message
from llmlaunch.worker.errors import BadRequest


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return ``messages`` with text as content.

    Raises BadRequest for parts that are not text, and for malformed tool calls.
    """
    plain: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        fields = message.model_dump(exclude_none=True)
        _check_tool_calls(fields.get("tool_calls"), f"messages[{index}].tool_calls")
        _check_function_call(fields.get("function_call"), f"messages[{index}].function_call")
        fields["content"] = _text(message, index)
        plain.append(fields)
    return plain


def _check_tool_calls(calls: Any, where: str) -> None:
    if calls is None:
        return
    if not isinstance(calls, list):
        raise BadRequest(f"{where} must be a list of calls", param=where)
    for at, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequest(
                f'{where}[{at}] must be {{"id", "type": "function", "function": {{"name", "arguments"}}}}',
                param=f"{where}[{at}]",
            )


def _check_function_call(call: Any, where: str) -> None:
    if call is not None and (not isinstance(call, dict) or not isinstance(call.get("name"), str)):
        raise BadRequest(f'{where} must be {{"name", "arguments"}}', param=where)


def _text(message: Message, index: int) -> str:
    if message.content is None:
        if message.role in ("system", "developer", "user"):
            raise BadRequest(f"messages[{index}].content is missing", param=f"messages[{index}].content")
        return ""
    if isinstance(message.content, str):
        return message.content
    texts: list[str] = []
    for at, part in enumerate(message.content):
        where = f"messages[{index}].content[{at}]"
        kind = part.get("type")
        if kind not in ("text", "input_text", "output_text", "refusal"):
            raise BadRequest(f"{where}: this model only supports text, not {kind!r}", param=where)
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise BadRequest(f"{where}.text must be a string", param=f"{where}.text")
        texts.append(text)
    return "".join(texts)
