"""Translates streams of OpenAI's API to Ollama's: lines of JSON, of which the last has ``done: true``. Pure.

Tool calls are told once they are complete, at the end of their choice, because their arguments are objects. The last line
waits for the token usage, which comes after the last choice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from llmlaunch.gateway.ollama.response_translation import (
    UNREADABLE,
    GenerationShape,
    error,
    error_message,
    logprobs,
    reasoning,
    tool_call,
    unparsed_call,
)
from llmlaunch.gateway.ollama.timing import Stopwatch
from llmlaunch.gateway.payload.model_field import dump

_DONE = b"[DONE]"
CUT = "The model's server ended its response without a reason."


def line(value: object) -> bytes:
    """``value`` as a line of a stream."""
    return dump(value) + b"\n"


@dataclass(slots=True)
class _PartialCall:
    """A tool call that is not complete yet."""

    index: int
    name: str = ""
    identity: str = ""
    arguments: str = ""


class StreamTranslation:
    """One stream, event by event."""

    def __init__(self, shape: GenerationShape, stopwatch: Stopwatch) -> None:
        self._shape = shape
        self._stopwatch = stopwatch
        self._calls: list[_PartialCall] = []
        self._finish_reason = ""
        self._usage: dict[str, Any] = {}
        self._ended = False

    def data(self, data: bytes) -> bytes:
        """The lines for an event with ``data``; empty if there are none."""
        if self._ended:
            return b""
        if data.strip() == _DONE:
            return self.end()
        try:
            return self._read(json.loads(data), data)
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            return self._fail(UNREADABLE)

    def end(self) -> bytes:
        """The lines for the end of the stream."""
        if self._ended:
            return b""
        if not self._finish_reason:
            return self._fail(CUT)
        self._ended = True
        lines = self._complete_calls()
        return lines + line(self._shape.final(self._shape.part(""), self._finish_reason, self._usage))

    def _read(self, value: dict[str, Any], data: bytes) -> bytes:
        if value.get("error"):
            return self._fail(error_message(data, 500))
        usage = value.get("usage")
        if isinstance(usage, dict):
            self._usage = usage
        lines = b""
        for choice in value.get("choices") or ():
            if choice.get("index", 0) == 0:
                lines += self._choice(choice)
        return lines

    def _choice(self, choice: dict[str, Any]) -> bytes:
        delta = choice.get("delta") or {}
        content = delta.get("content") or choice.get("text") or ""
        thought = reasoning(delta)
        probabilities = logprobs(choice)
        lines = b""
        if content or thought or probabilities:
            self._stopwatch.spoke()
            lines = line(self._shape.part(content, thought, **probabilities))
        for made in delta.get("tool_calls") or ():
            self._stopwatch.spoke()
            self._call(made)
        if choice.get("finish_reason"):
            self._finish_reason = str(choice["finish_reason"])
            lines += self._complete_calls()
        return lines

    def _call(self, made: dict[str, Any]) -> None:
        index, identity = made.get("index"), made.get("id") or ""
        call = next((one for one in reversed(self._calls) if index is None or one.index == index), None)
        # Some servers give every call the same index, or none.
        if call is None or (identity and call.identity and identity != call.identity):
            call = _PartialCall(len(self._calls) if index is None else index)
            self._calls.append(call)
        function = made.get("function") or {}
        call.name = call.name or function.get("name") or ""
        call.identity = call.identity or identity
        call.arguments += function.get("arguments") or ""

    def _complete_calls(self) -> bytes:
        lines = b""
        for position, call in enumerate(self._calls):
            told = tool_call(call.name, call.arguments, call.identity, position)
            content = unparsed_call(call.name, call.arguments) if told is None else ""
            lines += line(self._shape.part(content, calls=[told] if told else None))
        self._calls.clear()
        return lines

    def _fail(self, message: str) -> bytes:
        self._ended = True
        return line(error(message))
