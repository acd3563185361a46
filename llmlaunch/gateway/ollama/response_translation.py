"""Translates complete responses of OpenAI's API to Ollama's. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from llmlaunch.gateway.ollama.timing import Stopwatch

UNREADABLE = "The model's server sent a response that cannot be understood."
_DONE_REASONS = {"tool_calls": "stop", "function_call": "stop", "content_filter": "stop"}


def done_reason(finish_reason: str) -> str:
    """Ollama's word for OpenAI's ``finish_reason``: nearly always ``stop`` or ``length``."""
    return _DONE_REASONS.get(finish_reason, finish_reason)


def tool_call(name: str, arguments: str, identity: str, index: int) -> dict[str, Any] | None:
    """A tool call whose arguments are an object; None if they are not."""
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return {"id": identity, "function": {"index": index, "name": name, "arguments": value}}


def unparsed_call(name: str, arguments: str) -> str:
    """The text for a call whose arguments are not an object, so that they are not lost."""
    return f'{{"name": {json.dumps(name)}, "arguments": {arguments}}}'


def logprobs(choice: dict[str, Any]) -> dict[str, Any]:
    """``logprobs`` of a chat's choice as a field of Ollama's; nothing if there are none."""
    told = choice.get("logprobs")
    rows = told.get("content") if isinstance(told, dict) else None
    return {"logprobs": rows} if isinstance(rows, list) and rows else {}


def reasoning(message: dict[str, Any]) -> str:
    """The reasoning in a message or a delta, under either of the names that engines use."""
    return message.get("reasoning_content") or message.get("reasoning") or ""


class GenerationShape:
    """How a response of /api/chat or /api/generate is written."""

    def __init__(self, model: str, stopwatch: Stopwatch, *, chat: bool) -> None:
        self._model = model
        self._stopwatch = stopwatch
        self._chat = chat

    def part(
        self, content: str, thinking: str = "", calls: list[dict[str, Any]] | None = None, **more: Any
    ) -> dict[str, Any]:
        """A part of a response, which has what is new."""
        head = {"model": self._model, "created_at": self._stopwatch.date()}
        thought = {"thinking": thinking} if thinking else {}
        called = {"tool_calls": calls} if calls else {}
        said: dict[str, Any]
        if self._chat:
            said = {"message": {"role": "assistant", "content": content} | thought | called}
        else:
            said = {"response": content, **thought, **called}
        return {**head, **said, "done": False, **more}

    def final(self, part: dict[str, Any], finish_reason: str, usage: dict[str, Any]) -> dict[str, Any]:
        """``part`` as the last one of its response, with the statistics of all."""
        ending = {"done": True, "done_reason": done_reason(finish_reason)}
        return part | ending | self._stopwatch.statistics(usage)

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The response for a complete one of OpenAI's API. Raises ValueError."""
        choice = _first(answer.get("choices"))
        message = choice.get("message")
        if not isinstance(message, dict):
            message = {"content": choice.get("text")}
        content = message.get("content") or ""
        calls = []
        for index, made in enumerate(message.get("tool_calls") or ()):
            function = made["function"]
            name, arguments = function["name"], function.get("arguments") or "{}"
            call = tool_call(name, arguments, made.get("id") or "", index)
            if call is None:
                content += unparsed_call(name, arguments)
            else:
                calls.append(call)
        part = self.part(content, reasoning(message), calls, **logprobs(choice))
        return self.final(part, choice.get("finish_reason") or "stop", _usage(answer))


def embed(model: str, answer: dict[str, Any], stopwatch: Stopwatch) -> dict[str, Any]:
    """The response of /api/embed, whose vectors have the length 1. Raises ValueError."""
    vectors = [_normalized(vector) for vector in _vectors(answer)]
    return {"model": model, "embeddings": vectors} | stopwatch.statistics(_usage(answer), generated=False)


def embeddings(answer: dict[str, Any]) -> dict[str, Any]:
    """The response of /api/embeddings. Raises ValueError."""
    vectors = _vectors(answer)
    return {"embedding": vectors[0] if vectors else []}


def error(message: str) -> dict[str, str]:
    """Ollama's form of an error."""
    return {"error": message}


def error_message(body: bytes, status: int) -> str:
    """What the error ``body`` of a replica says, whatever its form."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = body.decode(errors="replace").strip()
    for name in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(name):
            value = value[name]
    if isinstance(value, str) and value:
        return value
    return json.dumps(value) if value else f"The model's server answered {status}."


def _first(rows: object) -> dict[str, Any]:
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
        raise ValueError("no choices")
    return rows[0]


def _usage(answer: dict[str, Any]) -> dict[str, Any]:
    usage = answer.get("usage")
    return usage if isinstance(usage, dict) else {}


def _vectors(answer: dict[str, Any]) -> list[list[float]]:
    rows = answer.get("data")
    if not isinstance(rows, list):
        raise ValueError("no data")
    try:
        return [row["embedding"] for row in sorted(rows, key=lambda row: row.get("index", 0))]
    except (KeyError, TypeError, AttributeError):
        raise ValueError("no embeddings") from None


def _normalized(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    if length == 0 or abs(length - 1) < 1e-3:
        return vector
    return [value / length for value in vector]
