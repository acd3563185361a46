"""Translates the items of a conversation into chat messages. Errors name the item.

Items of kinds that only OpenAI's own tools have are skipped, and so are kinds that are newer than this list: clients send the
whole conversation each time, and one item that says nothing to the model must not end it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmlaunch.worker.api.responses.tools import Function, OfferedTools
from llmlaunch.worker.errors import BadRequest

ROLES = ("system", "developer", "user", "assistant")
TEXT_PARTS = ("input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text")
TOOL_LISTS = ("additional_tools", "tool_search_output")
"""Kinds of items that declare further tools."""

CALLS = {
    "function_call": ("arguments", ""),
    "custom_tool_call": ("input", ""),
    "mcp_call": ("arguments", ""),
    "local_shell_call": ("action", "local_shell"),
    "shell_call": ("action", "shell"),
    "apply_patch_call": ("operation", "apply_patch"),
}
"""Kinds of items that are calls of a tool: the field that has what the tool was given, and the tool's name; empty: the item has it."""
RESULTS = (
    "function_call_output", "custom_tool_call_output", "local_shell_call_output", "shell_call_output",
    "apply_patch_call_output",
)  # fmt: skip
"""Kinds of items that are the results of such calls."""
_SUMMARY = "llmlaunch-summary-1:"
"""How our own compaction items begin. Those of OpenAI's say nothing to anybody else."""


def kind_of(item: Mapping[str, Any]) -> str | None:
    """Return the type of an item; OpenAI lets clients leave out that of messages and of references."""
    kind = item.get("type")
    if kind is None and "role" in item:
        return "message"
    if kind is None and isinstance(item.get("id"), str):
        return "item_reference"
    return kind if isinstance(kind, str) else None


def as_items(given: str | Sequence[dict[str, Any]] | None, *, optional: bool = False) -> list[dict[str, Any]]:
    """Return ``input`` as a list of items. Raises BadRequest if it is empty, unless it is ``optional``."""
    if isinstance(given, str) and given:
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    if not given and not optional:
        missing = given is None
        code = "missing_required_parameter" if missing else None
        raise BadRequest(f"input is {'missing' if missing else 'empty'}", param="input", code=code)
    return [item for item in given or () if isinstance(item, dict)]


def summary_item(summary: str) -> dict[str, Any]:
    """Return the item that stands for a conversation of which ``summary`` is left."""
    encoded = base64.urlsafe_b64encode(summary.encode()).decode()
    return {"type": "compaction", "encrypted_content": _SUMMARY + encoded}


def _summary_in(item: Mapping[str, Any]) -> str | None:
    """The summary in a compaction item; None if it is not one of our own."""
    content = item.get("encrypted_content")
    if not isinstance(content, str) or not content.startswith(_SUMMARY):
        return None
    try:
        return base64.b64decode(content.removeprefix(_SUMMARY), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def further_tools(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tools that ``items`` declare, beside those of the body."""
    lists = [item.get("tools") for item in items if kind_of(item) in TOOL_LISTS]
    return [tool for tools in lists if isinstance(tools, list) for tool in tools if isinstance(tool, dict)]


def messages(
    items: Sequence[dict[str, Any]], offered: OfferedTools, *, first: int = 0
) -> list[dict[str, Any]]:
    """Return ``items`` as chat messages, the roles system and developer included.

    ``first``: the index of the first item that is a part of ``input``, for errors. Raises BadRequest for items that are not
    valid, and for parts that a text model does not support.
    """
    found: list[dict[str, Any]] = []
    for at, item in enumerate(items):
        where = f"input[{at - first}]" if at >= first else "an earlier item"
        _add_item(found, item, where, offered)
    return found


def _add_item(found: list[dict[str, Any]], item: dict[str, Any], where: str, offered: OfferedTools) -> None:
    kind = kind_of(item)
    if kind is None:
        raise BadRequest(f"{where}.type must be a string, such as 'message'", param="input")
    if kind == "message":
        role = item.get("role")
        if role not in ROLES:
            raise BadRequest(f"{where}.role: {role!r} is not one of {', '.join(ROLES)}", param="input")
        content = item.get("content")
        if content is None and role != "assistant":
            raise BadRequest(f"{where}.content is missing", param="input")
        found.append({"role": role, "content": _text(content, f"{where}.content")})
    elif kind in CALLS:
        _add_call(found, item, kind, where, offered)
    elif kind in RESULTS:
        _add_result(found, _call_id(item, kind, where), item.get("output"), f"{where}.output")
    elif kind == "compaction":
        if (summary := _summary_in(item)) is not None:
            found.append({"role": "user", "content": f"A summary of the conversation so far:\n\n{summary}"})
    elif kind == "compaction_trigger":
        # Its client waits for an item that only a summary could be.
        raise BadRequest(
            f"{where}: compaction_trigger is not supported by this engine: use POST /v1/responses/compact",
            param="input",
            code="unsupported",
        )


def _add_call(
    found: list[dict[str, Any]], item: dict[str, Any], kind: str, where: str, offered: OfferedTools
) -> None:
    field, own_name = CALLS[kind]
    call_id, name = _call_id(item, kind, where), own_name or item.get("name")
    if not isinstance(name, str):
        raise BadRequest(f"{where}.name must be a string", param="input")
    if not own_name:
        namespace = item.get("namespace")
        name = offered.name_of(Function(name, namespace if isinstance(namespace, str) else ""))
    given = item.get(field)
    if kind == "custom_tool_call":  # its input is a text, not JSON
        given = {"input": given}
    arguments = given if isinstance(given, str) else _json(given or {})
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments or "{}"}}
    # The calls of one turn are separate items here, but one message in chat.
    if found and found[-1]["role"] == "assistant":
        found[-1].setdefault("tool_calls", []).append(call)
    else:
        found.append({"role": "assistant", "content": "", "tool_calls": [call]})
    if kind == "mcp_call":  # it has its result in itself
        _add_result(found, call_id, item.get("output") or item.get("error"), f"{where}.output")


def _add_result(found: list[dict[str, Any]], call_id: str, output: Any, where: str) -> None:
    found.append({"role": "tool", "tool_call_id": call_id, "content": _output(output, where)})


def _call_id(item: dict[str, Any], kind: str, where: str) -> str:
    """The id that joins a call and its result. Some kinds have none but the item's own."""
    found = item.get("call_id")
    if found is None and kind != "function_call_output":
        found = item.get("id")
    if not isinstance(found, str):
        raise BadRequest(f"{where}.call_id must be a string", param="input")
    return found


def _output(output: Any, where: str) -> str:
    """The result of a call as text: it may be a text, parts, or any JSON.

    A part that is no text is described instead of refused: the program that gave it could not know what the model can read.
    """
    if output is None:
        return ""
    parts = output if isinstance(output, list) else [output]
    texts = []
    for at, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str):
            texts.append(part)
        elif kind in TEXT_PARTS:
            texts.append(_part_text(part, f"{where}[{at}]"))
        elif isinstance(kind, str) and kind.startswith("input_"):
            texts.append(f"[{kind.removeprefix('input_')} left out: this model only reads text]")
        else:
            texts.append(_json(part))
    return "".join(texts)


def _text(content: Any, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):  # one part
        content = [content]
    if not isinstance(content, list):
        raise BadRequest(f"{where} must be a string or a list of parts", param="input")
    return "".join(_part_text(part, f"{where}[{at}]") for at, part in enumerate(content))


def _part_text(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in TEXT_PARTS:
        raise BadRequest(f"{where}: this model only supports text, not {kind!r}", param="input")
    text = part.get("refusal" if kind == "refusal" else "text")
    if not isinstance(text, str):
        raise BadRequest(f"{where}.text must be a string", param="input")
    return text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
