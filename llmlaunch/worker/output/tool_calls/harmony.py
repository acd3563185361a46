"""gpt-oss's harmony: every part of an answer says its channel, and a call its recipient.

::

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{…}<|call|>
    <|channel|>final<|message|>…<|return|>

The analysis is reasoning, a message to ``functions.f`` a call, and everything else the answer's text. Source of the format:
https://cookbook.openai.com/articles/openai-harmony. Pure.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from llmlaunch.worker.output.stops import StopStringFilter
from llmlaunch.worker.output.tool_calls.types import ToolCallDelta, Tools, merged

CHANNEL, START, MESSAGE = "<|channel|>", "<|start|>", "<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_BODY_ENDS = (*_ENDS, START, CHANNEL)
MARKERS = (CHANNEL, START, MESSAGE, "<|constrain|>", *_ENDS)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_BEGINNINGS = (CHANNEL, START, "assistant", "to=")
_HEADER_LIMIT = 512
"""Characters after which text without a message mark is not a header."""


class _HarmonyState(Enum):
    START = auto()
    """Nothing yet: a header, or text of a model that was not asked for harmony."""
    HEADER = auto()
    THOUGHT = auto()
    TEXT = auto()
    CALL = auto()


class HarmonyParser:
    """Follows one answer. ``parallel`` False: only the first call counts."""

    def __init__(self, tools: Tools, *, parallel: bool = True) -> None:
        self._tools = tools
        self._parallel = parallel
        self._state = _HarmonyState.START
        self._buffer = ""
        self._body = StopStringFilter(_BODY_ENDS)
        self.calls = 0

    @property
    def inside(self) -> bool:
        """Whether the text that comes next is reasoning."""
        return self._state is _HarmonyState.THOUGHT

    def push(self, text: str) -> list[ToolCallDelta]:
        """What ``text`` completes: at most one delta a call."""
        self._buffer += text
        return merged(self._run(), parallel=self._parallel)

    def flush(self) -> list[ToolCallDelta]:
        """The rest, at the end of the answer; an unfinished header is not text."""
        deltas = self._run()
        if self._state in (_HarmonyState.THOUGHT, _HarmonyState.TEXT, _HarmonyState.CALL):
            deltas.append(self._delta(self._body.flush_after("")))
        elif not self._buffer.lstrip().startswith(_BEGINNINGS):
            deltas.append(ToolCallDelta(text=self._buffer))
        self._buffer = ""
        return merged(deltas, parallel=self._parallel)

    def _run(self) -> list[ToolCallDelta]:
        deltas: list[ToolCallDelta] = []
        while self._buffer:
            if self._state is _HarmonyState.START:
                begun = self._buffer.lstrip()
                if begun.startswith(_BEGINNINGS):
                    self._state = _HarmonyState.HEADER
                elif any(beginning.startswith(begun) for beginning in _BEGINNINGS):
                    break
                else:
                    self._state = _HarmonyState.TEXT
            elif self._state is _HarmonyState.HEADER:
                at = self._buffer.find(MESSAGE)
                if at < 0 and len(self._buffer) <= _HEADER_LIMIT:
                    break
                if at < 0:
                    self._state = _HarmonyState.TEXT
                    continue
                header, self._buffer = self._buffer[:at], self._buffer[at + len(MESSAGE) :]
                deltas.append(self._opened(header))
            else:
                text, self._buffer = self._buffer, ""
                deltas.append(self._delta(self._body.push(text)))
                if self._body.matched is not None:
                    begins = "" if self._body.matched in _ENDS else self._body.matched
                    self._buffer = begins + self._body.remainder
                    self._body = StopStringFilter(_BODY_ENDS)
                    self._state = _HarmonyState.START
        return deltas

    def _opened(self, header: str) -> ToolCallDelta:
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        name = recipient[1].removeprefix("functions.") if recipient else ""
        if recipient and (name != recipient[1] or name in self._tools):
            self._state = _HarmonyState.CALL
            self.calls += 1
            return ToolCallDelta(index=self.calls - 1, name=name)
        # Other recipients are tools that gpt-oss was trained with and that nobody offers here.
        thought = (channel is not None and channel[1] == "analysis") or recipient is not None
        self._state = _HarmonyState.THOUGHT if thought else _HarmonyState.TEXT
        return ToolCallDelta()

    def _delta(self, text: str) -> ToolCallDelta:
        if self._state is _HarmonyState.CALL:
            return ToolCallDelta(index=self.calls - 1, arguments=text) if text else ToolCallDelta()
        return (
            ToolCallDelta(reasoning=text)
            if self._state is _HarmonyState.THOUGHT
            else ToolCallDelta(text=text)
        )
