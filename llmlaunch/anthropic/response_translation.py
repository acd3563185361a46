"""A chat completion as a message of Anthropic's. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def message(
    completion: Mapping[str, Any], model: str, *, stops: Sequence[str] = (), thinking: bool = True
) -> dict[str, Any]:
    """The message for ``completion``, whose first choice counts. ``model``: the name that was asked for.

    ``stops``: the request's stop sequences. ``thinking``: whether reasoning is shown.
    """
    choice = first_choice(completion)
    said = choice.get("message")
    said = said if isinstance(said, dict) else {}
    blocks: list[dict[str, Any]] = []
    thought = reasoning_of(said)
    if thought and thinking:
        blocks.append({"type": "thinking", "thinking": thought, "signature": signature(thought)})
    identity = message_id(completion.get("id"))
    calls = [tool_use(call, identity, at) for at, call in enumerate(calls_of(said))]
    text = said.get("content")
    if isinstance(text, str) and (text.strip() or (text and not blocks and not calls)):
        blocks.append({"type": "text", "text": text})
    reason, sequence = stop_reason(choice, stops, has_calls=bool(calls))
    return envelope(identity, model, usage(completion.get("usage"))) | {
        "content": blocks + calls,
        "stop_reason": reason,
        "stop_sequence": sequence,
    }


def envelope(identity: str, model: str, counts: dict[str, int]) -> dict[str, Any]:
    """A message without content."""
    return {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": counts,
    }


def message_id(completion_id: Any) -> str:
    """The message's id, from the completion's."""
    text = completion_id if isinstance(completion_id, str) and completion_id else "0"
    return f"msg_{text.removeprefix('chatcmpl-')}"


def first_choice(completion: Mapping[str, Any]) -> dict[str, Any]:
    """The first choice; empty when there is none."""
    choices = completion.get("choices")
    found = choices[0] if isinstance(choices, list) and choices else None
    return found if isinstance(found, dict) else {}


def reasoning_of(said: Mapping[str, Any]) -> str:
    """The reasoning in a message or delta: engines call it ``reasoning_content`` or ``reasoning``."""
    found = said.get("reasoning_content") or said.get("reasoning")
    return found if isinstance(found, str) else ""


def calls_of(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tool calls in a message or delta; what is no object is left out."""
    found = said.get("tool_calls")
    return [call for call in found if isinstance(call, dict)] if isinstance(found, list) else []


def signature(thought: str) -> str:
    """The signature of a thinking block. Clients pass it back as it is; nobody here reads it, but they want one."""
    return base64.b64encode(hashlib.sha256(thought.encode(errors="replace")).digest()).decode()


def tool_use(call: Mapping[str, Any], identity: str, at: int) -> dict[str, Any]:
    """The block for a tool call, the ``at``-th of the message ``identity``. Arguments that are no object are kept as text."""
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    given = function.get("arguments") or "{}"
    try:
        arguments = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {"arguments": given}
    return {
        "type": "tool_use",
        "id": call_id(call, identity, at),
        "name": str(function.get("name") or ""),
        "input": arguments,
    }


def call_id(call: Mapping[str, Any], identity: str, at: int) -> str:
    """The id of a tool call; one made of the message's if the engine gave none."""
    return str(call.get("id") or f"toolu_{identity.removeprefix('msg_')}_{at}")


def stop_reason(
    choice: Mapping[str, Any], stops: Sequence[str], *, has_calls: bool
) -> tuple[str, str | None]:
    """Why the message ends, and at which of the request's stop sequences ``stops``, if the engine tells."""
    finish = choice.get("finish_reason")
    if has_calls and finish in ("stop", None):  # some engines say "stop" after a call that was demanded
        return "tool_use", None
    sequence = choice.get("stop_reason")
    if finish == "stop" and isinstance(sequence, str) and sequence in stops:
        return "stop_sequence", sequence
    return _STOP_REASONS.get(finish, "end_turn") if isinstance(finish, str) else "end_turn", None


def usage(counts: Any, known_input: int = 0) -> dict[str, int]:
    """Anthropic's counts, where input tokens are those that were not in the cache. ``known_input``: without ``counts``."""
    counts = counts if isinstance(counts, dict) else {"prompt_tokens": known_input}
    details = counts.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
    return {
        "input_tokens": max(0, _count(counts, "prompt_tokens") - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": _count(counts, "completion_tokens"),
    }


def _count(counts: Mapping[str, Any], key: str) -> int:
    found = counts.get(key)
    return found if isinstance(found, int) else 0
