"""The chunks of a streamed chat completion as the events of a streamed message. Pure.

::

    message_start  ping  (content_block_start  content_block_delta …  content_block_stop) …  message_delta  message_stop

One block is open at a time: thinking, text, or one tool call. The usage comes in the last chunk, so it is told in
message_delta.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmlaunch.anthropic import errors
from llmlaunch.anthropic.response_translation import (
    call_id,
    calls_of,
    envelope,
    first_choice,
    message_id,
    reasoning_of,
    signature,
    stop_reason,
    usage,
)

DONE = b"[DONE]"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def event(value: Mapping[str, Any]) -> bytes:
    """One server-sent event, named by its ``type``. A lone surrogate, which UTF-8 cannot encode, becomes "?"."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    return b"event: %b\ndata: %b\n\n" % (str(value["type"]).encode(), data)


def error_event(status: int, message: str) -> bytes:
    """The event that ends a stream that cannot go on."""
    return event(errors.envelope(status, message))


class StreamTranslation:
    """Translates one stream: :meth:`data` gets what each event holds, and :meth:`end` is called after the last."""

    def __init__(
        self, model: str, *, stops: Sequence[str] = (), thinking: bool = True, input_tokens: int = 0
    ) -> None:
        """``model``: the name that was asked for. ``stops``, ``thinking``: as for ``response_translation.message``.

        ``input_tokens``: of the prompt, if they are known at the start.
        """
        self._model = model
        self._stops = stops
        self._shows_thinking = thinking
        self._input_tokens = input_tokens
        self._id = ""
        self._open = ""
        """The type of the open block."""
        self._blocks = 0
        """Blocks that were closed."""
        self._thought = ""
        """The thinking of the open block."""
        self._blank = ""
        """White space that waits for a text: alone it is no block."""
        self._call: int | None = None
        """The engine's index of the open tool call."""
        self._calls = 0
        self._choice: dict[str, Any] = {}
        """The choice that told the finish reason."""
        self._usage: Any = None
        self._over = False

    def data(self, data: bytes) -> bytes:
        """The events for the ``data`` of one event of the engine's."""
        if self._over:
            return b""
        if data.strip() == DONE:
            return self.end()
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return self.fail(502, "the engine sent an event that is not valid JSON")
        return self.chunk(value) if isinstance(value, dict) else b""

    def chunk(self, chunk: Mapping[str, Any]) -> bytes:
        """The events for one chunk."""
        if chunk.get("error"):
            return self._failed(chunk)
        parts = []
        if not self._id:
            self._id = message_id(chunk.get("id"))
            start = envelope(self._id, self._model, usage(chunk.get("usage"), self._input_tokens))
            parts += [event({"type": "message_start", "message": start}), PING]
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        choice = first_choice(chunk)
        delta = choice.get("delta")
        if isinstance(delta, dict):
            parts.append(self._delta(delta))
        if choice.get("finish_reason"):
            self._choice = choice
        return b"".join(parts)

    def end(self) -> bytes:
        """The last events. A stream that ends without a finish reason is an error."""
        if self._over:
            return b""
        if not self._choice:
            return self.fail(502, "the engine's answer ended early")
        self._over = True
        parts = []
        if self._blank and not self._open and not self._blocks:
            parts.append(self._text_block(self._blank))
        parts.append(self._close())
        reason, sequence = stop_reason(self._choice, self._stops, has_calls=self._calls > 0)
        counts = usage(self._usage, self._input_tokens)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        parts.append(event({"type": "message_delta", "delta": delta, "usage": counts}))
        parts.append(event({"type": "message_stop"}))
        return b"".join(parts)

    def fail(self, status: int, message: str) -> bytes:
        """The events that end the stream with an error; ``status`` is the HTTP status that it would have had."""
        self._over = True
        return error_event(status, message)

    def _failed(self, chunk: Mapping[str, Any]) -> bytes:
        found = chunk["error"]
        told = found.get("code") if isinstance(found, dict) else None
        status = told if isinstance(told, int) and 400 <= told < 600 else 500
        self._over = True
        return event(errors.from_openai(status, json.dumps(chunk).encode()))

    # -- blocks

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        parts = []
        thought = reasoning_of(delta)
        if thought and self._shows_thinking:
            if self._open != "thinking":
                parts.append(self._start({"type": "thinking", "thinking": "", "signature": ""}))
            self._thought += thought
            parts.append(self._block_delta({"type": "thinking_delta", "thinking": thought}))
        text = delta.get("content")
        if isinstance(text, str) and text:
            parts.append(self._text(text))
        parts.extend(self._tool_call(call) for call in calls_of(delta) if not self._over)
        return b"".join(parts)

    def _text(self, text: str) -> bytes:
        if self._open == "text":
            return self._block_delta({"type": "text_delta", "text": text})
        text = self._blank + text
        if not text.strip():
            self._blank = text
            return b""
        return self._text_block(text)

    def _text_block(self, text: str) -> bytes:
        started = self._start({"type": "text", "text": ""})
        return started + self._block_delta({"type": "text_delta", "text": text})

    def _tool_call(self, call: Mapping[str, Any]) -> bytes:
        index = call.get("index")
        index = index if isinstance(index, int) else self._calls
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        parts = []
        if self._open != "tool_use" or index != self._call:
            if not function.get("name"):
                return self.fail(502, "the engine mixed the parts of several tool calls")
            block = {
                "type": "tool_use",
                "id": call_id(call, self._id, self._calls),
                "name": str(function["name"]),
                "input": {},
            }
            parts.append(self._start(block))
            self._call = index
            self._calls += 1
        arguments = function.get("arguments")
        if arguments:
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            parts.append(self._block_delta({"type": "input_json_delta", "partial_json": text}))
        return b"".join(parts)

    def _start(self, block: Mapping[str, Any]) -> bytes:
        closed = self._close()
        self._open, self._blank = str(block["type"]), ""
        started = event({"type": "content_block_start", "index": self._blocks, "content_block": block})
        return closed + started

    def _block_delta(self, delta: Mapping[str, Any]) -> bytes:
        return event({"type": "content_block_delta", "index": self._blocks, "delta": delta})

    def _close(self) -> bytes:
        if not self._open:
            return b""
        signed = b""
        if self._open == "thinking":
            signed = self._block_delta({"type": "signature_delta", "signature": signature(self._thought)})
            self._thought = ""
        stopped = event({"type": "content_block_stop", "index": self._blocks})
        self._open = ""
        self._blocks += 1
        return signed + stopped
