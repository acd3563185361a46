"""A body of ``POST /v1/messages`` as one of ``POST /v1/chat/completions``. Pure.

What has no counterpart is left out: cache_control, service_tier, container, mcp_servers, context_management, betas; and
tools that run at Anthropic, such as web_search_20250305.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmlaunch.anthropic.content import PARAGRAPH, Part, blocks_of, content_of, parts_of, system_text
from llmlaunch.anthropic.errors import InvalidRequest

_SAME = ("model", "temperature", "top_p", "top_k", "stream", "seed", "priority")
"""Fields that both APIs have. The last ones are extensions that engines know."""
_EFFORTS = {"xhigh": "high", "max": "high"}
"""Efforts that not every engine knows, and the one to send instead."""
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_request(body: Mapping[str, Any], *, images: bool) -> dict[str, Any]:
    """The chat body for ``body``. ``images``: whether images are translated, or refused. Raises InvalidRequest."""
    chat: dict[str, Any] = {key: body[key] for key in _SAME if body.get(key) is not None}
    chat["messages"] = _messages(body, images=images)
    if chat.get("stream"):
        chat["stream_options"] = {"include_usage": True}
    if body.get("max_tokens") is not None:
        chat["max_tokens"] = _max_tokens(body["max_tokens"])
    stops = body.get("stop_sequences") or []
    if not isinstance(stops, list):
        raise InvalidRequest("stop_sequences must be a list of strings", "stop_sequences")
    if any(stops):
        chat["stop"] = [stop for stop in stops if stop]
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("user_id"), str):
        chat["user"] = metadata["user_id"]
    return chat | _continuation(chat["messages"]) | _tools(body) | _thinking(body) | _output(body)


def shows_thinking(body: Mapping[str, Any]) -> bool:
    """Whether the response may contain thinking blocks: unless ``body`` turns thinking off, or leaves it out."""
    thinking = body.get("thinking")
    if not isinstance(thinking, dict):
        return True
    return thinking.get("type") != "disabled" and thinking.get("display") != "omitted"


def _max_tokens(asked: Any) -> int:
    whole = isinstance(asked, int) or (isinstance(asked, float) and asked.is_integer())
    if isinstance(asked, bool) or not whole or asked < 0:
        raise InvalidRequest("max_tokens must be a whole number of at least 0", "max_tokens")
    return max(1, int(asked))  # 0 only fills the prompt cache; no engine generates less than one token


# -- messages


def _messages(body: Mapping[str, Any], *, images: bool) -> list[dict[str, Any]]:
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise InvalidRequest("messages must be a list of at least one message", "messages")
    messages: list[dict[str, Any]] = []
    system = system_text(body.get("system"))
    if system:
        messages.append({"role": "system", "content": system})
    for at, message in enumerate(given):
        where = f"messages[{at}]"
        if not isinstance(message, dict):
            raise InvalidRequest(f"{where} must be an object with a role and content", where)
        role, blocks = message.get("role"), blocks_of(message.get("content"), f"{where}.content")
        if role == "user":
            _add_user(messages, blocks, f"{where}.content", images=images)
        elif role == "assistant":
            _add_assistant(messages, blocks, f"{where}.content")
        elif role == "system":
            _add_instruction(messages, system_text(blocks))
        else:
            raise InvalidRequest(f"{where}.role must be user or assistant, not {role!r}", f"{where}.role")
    return messages


def _add_instruction(messages: list[dict[str, Any]], text: str) -> None:
    """Add a system message that comes within the conversation.

    Most chat templates want the only one first. Moved there it would change the beginning of the prompt, and with it all
    that is in the KV cache; so the user says it, in the form in which Claude Code puts such words.
    """
    if len(messages) <= 1 and all(message["role"] == "system" for message in messages):
        system = PARAGRAPH.join(filter(None, (*(message["content"] for message in messages), text)))
        messages[:] = [{"role": "system", "content": system}]
        return
    _say(messages, f"<system-reminder>\n{text}\n</system-reminder>")


def _say(messages: list[dict[str, Any]], content: str | list[Part]) -> None:
    """Add what a user says. Consecutive messages of a user are one turn, as with Anthropic."""
    last = messages[-1] if messages else {}
    if last.get("role") == "user" and isinstance(last["content"], str) and isinstance(content, str):
        last["content"] = PARAGRAPH.join(filter(None, (last["content"], content)))
    else:
        messages.append({"role": "user", "content": content})


def _add_user(
    messages: list[dict[str, Any]], blocks: list[dict[str, Any]], where: str, *, images: bool
) -> None:
    """Add the results of tools, which must follow their calls, and then what the user says."""
    said: list[Part] = []
    for at, block in enumerate(blocks):
        if block["type"] != "tool_result":
            said += parts_of(block, f"{where}[{at}]", images=images)
            continue
        result, shown = _tool_result(block, f"{where}[{at}]", images=images)
        messages.append(result)
        said += shown
    if said or not blocks:
        _say(messages, content_of(said))


def _tool_result(block: dict[str, Any], where: str, *, images: bool) -> tuple[dict[str, Any], list[Part]]:
    """The message with a tool's result, and the images in it: OpenAI's tool messages are text."""
    identity = block.get("tool_use_id")
    if not isinstance(identity, str) or not identity:
        raise InvalidRequest(f"{where}.tool_use_id is missing", f"{where}.tool_use_id")
    inner = f"{where}.content"
    parts = [
        part
        for at, each in enumerate(blocks_of(block.get("content"), inner))
        for part in parts_of(each, f"{inner}[{at}]", images=images)
    ]
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    if block.get("is_error") and not text.lower().startswith(("error", "<tool_use_error>")):
        text = f"Error: {text}"
    return {"role": "tool", "tool_call_id": identity, "content": text}, [
        part for part in parts if part["type"] != "text"
    ]


def _add_assistant(messages: list[dict[str, Any]], blocks: list[dict[str, Any]], where: str) -> None:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for at, block in enumerate(blocks):
        kind = block["type"]
        if kind == "tool_use":
            calls.append(_tool_call(block, f"{where}[{at}]"))
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking") or ""))
        elif kind != "redacted_thinking":
            texts += [part["text"] for part in parts_of(block, f"{where}[{at}]", images=False)]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if any(thoughts):
        message["reasoning_content"] = PARAGRAPH.join(filter(None, thoughts))
    if calls:
        message["tool_calls"] = calls
    messages.append(message)


def _tool_call(block: dict[str, Any], where: str) -> dict[str, Any]:
    for key in ("id", "name"):
        if not isinstance(block.get(key), str) or not block[key]:
            raise InvalidRequest(f"{where}.{key} is missing", f"{where}.{key}")
    given = block.get("input")
    arguments = given if isinstance(given, str) else json.dumps(given or {}, ensure_ascii=False)
    return {
        "id": block["id"],
        "type": "function",
        "function": {"name": block["name"], "arguments": arguments},
    }


def _continuation(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """An answer that begins with the last message, which is the assistant's, goes on from it."""
    last = messages[-1]
    if last["role"] != "assistant" or last.get("tool_calls") or not last["content"]:
        return {}
    return {"continue_final_message": True, "add_generation_prompt": False}


# -- tools, thinking, form of the answer


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    given = body.get("tools") or []
    if not isinstance(given, list):
        raise InvalidRequest("tools must be a list", "tools")
    tools: list[dict[str, Any]] = []
    skipped: list[Any] = []
    for at, tool in enumerate(given):
        where = f"tools[{at}]"
        if not isinstance(tool, dict):
            raise InvalidRequest(f"{where} must be an object", where)
        if tool.get("type") not in (None, "custom"):
            skipped.append(tool.get("name"))
            continue
        tools.append({"type": "function", "function": _function(tool, where)})
    choice = _checked_choice(body.get("tool_choice"), [tool["function"]["name"] for tool in tools], skipped)
    if not tools:
        return {}
    found: dict[str, Any] = {"tools": tools, "tool_choice": _tool_choice(choice)}
    if choice.get("disable_parallel_tool_use"):
        found["parallel_tool_calls"] = False
    return found


def _checked_choice(given: Any, names: list[str], skipped: list[Any]) -> dict[str, Any]:
    choice = {"type": given} if isinstance(given, str) else given or {"type": "auto"}
    if not isinstance(choice, dict):
        raise InvalidRequest("tool_choice must be an object with a type", "tool_choice")
    name = choice.get("name")
    if choice.get("type") == "tool" and name not in names:
        gone = "runs at Anthropic and does not exist here"
        why = gone if name in skipped else "is not one of the tools"
        raise InvalidRequest(f"tool_choice: {name!r} {why}", "tool_choice.name")
    return choice


def _function(tool: dict[str, Any], where: str) -> dict[str, Any]:
    name, schema = tool.get("name"), tool.get("input_schema")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"{where}.name is missing", f"{where}.name")
    if schema is not None and not isinstance(schema, dict):
        raise InvalidRequest(f"{where}.input_schema must be a JSON schema", f"{where}.input_schema")
    function: dict[str, Any] = {"name": name, "parameters": schema or {"type": "object", "properties": {}}}
    if isinstance(tool.get("description"), str):
        function["description"] = tool["description"]
    if isinstance(tool.get("strict"), bool):
        function["strict"] = tool["strict"]
    return function


def _tool_choice(choice: dict[str, Any]) -> str | dict[str, Any]:
    kind = choice.get("type")
    if kind == "tool":
        return {"type": "function", "function": {"name": choice["name"]}}
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise InvalidRequest(
            f"tool_choice.type must be auto, any, tool or none, not {kind!r}", "tool_choice.type"
        )
    return _CHOICES[kind]


def _thinking(body: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the model thinks first, by the names that chat templates have for it; unsaid, it does as it likes."""
    thinking = body.get("thinking")
    if thinking is None:
        return {}
    kind = thinking.get("type") if isinstance(thinking, dict) else thinking
    if kind not in ("enabled", "adaptive", "disabled", "between_tools"):
        raise InvalidRequest(
            f"thinking.type must be enabled, adaptive or disabled, not {kind!r}", "thinking.type"
        )
    on = kind != "disabled"
    found: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": on, "thinking": on}}
    return found if on else found | {"include_reasoning": False}


def _output(body: Mapping[str, Any]) -> dict[str, Any]:
    """The effort, and the schema of the answer; an older beta had the schema in ``output_format``."""
    config = body.get("output_config")
    config = config if isinstance(config, dict) else {}
    found: dict[str, Any] = {}
    effort = config.get("effort")
    if isinstance(effort, str):
        found["reasoning_effort"] = _EFFORTS.get(effort, effort)
    form = config.get("format") or body.get("output_format")
    if form is not None:
        if (
            not isinstance(form, dict)
            or form.get("type") != "json_schema"
            or not isinstance(form.get("schema"), dict)
        ):
            raise InvalidRequest(
                'output_config.format must be {"type": "json_schema", "schema": {…}}', "output_config.format"
            )
        schema = {"name": "output", "schema": form["schema"], "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    return found
