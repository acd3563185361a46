"""Tool calls written as JSON objects: Hermes, Qwen, Mistral and Llama 3. Pure.

Each call is an object with a name and arguments, after a marker that depends on the model family::

    Hermes, Qwen    <tool_call>{"name": "f", "arguments": {…}}</tool_call>
    Mistral         [TOOL_CALLS] [{"name": "f", "arguments": {…}}, …]
                    [TOOL_CALLS]f[ARGS]{…}[TOOL_CALLS]g[ARGS]{…}  (tokenizers v11 and later; some with [CALL_ID]…)
    Llama 3         {"name": "f", "parameters": {…}}            (the whole answer), or after <|python_tag|>

The text between the objects varies and means nothing: it is skipped.
"""

from __future__ import annotations

import json
import re
from enum import Enum, auto

from llmlaunch.worker.output.stops import StopStringFilter
from llmlaunch.worker.output.tool_calls.json_value import JsonValueEnd
from llmlaunch.worker.output.tool_calls.types import ToolCallDelta

_NAME_MARKER = "[TOOL_CALLS]"
"""After this marker the name may precede the object, which then contains only the arguments."""
MARKERS = ("<tool_call>", _NAME_MARKER, "<|python_tag|>")
_CALL_HEAD = re.compile(
    r'\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\S)'
)
_CALL_NAME = re.compile(r"(?:^|\[TOOL_CALLS\])\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*\w*\s*)?(?:\[ARGS\]\s*)?$")
_NAME_LIMIT = 512
"""Characters before an object that are searched for the name of a call."""
_BARE_CALL = re.compile(r'\s*\{\s*"name"\s*:')
_BARE_CALL_PREFIX = '{"name":'


def _unescaped(written: str) -> str:
    """A JSON string without its quotes; unchanged if a model writes an invalid escape."""
    try:
        return str(json.loads(f'"{written}"', strict=False))
    except ValueError:
        return written


class _State(Enum):
    TEXT = auto()
    """No call so far."""
    BETWEEN = auto()
    """After a marker or a call, before the next object."""
    HEAD = auto()
    """In an object, before its arguments."""
    ARGUMENTS = auto()
    TAIL = auto()
    """In an object, after its arguments."""


class JsonToolCallParser:
    """Parses one answer. ``marked`` False: the whole answer consists of calls (structured output enforced it)."""

    def __init__(self, *, marked: bool = True) -> None:
        self._state = _State.TEXT if marked else _State.BETWEEN
        self._markers = StopStringFilter(MARKERS)
        self._is_text = False
        """Whether the answer begins with text, not with a bare call."""
        self._opening = ""
        """The beginning of the answer, as long as it may be a bare call."""
        self._buffer = ""
        self._end = JsonValueEnd()
        self._named_outside = False
        """Whether a name may precede the object."""
        self._after = _State.TAIL
        """The state after the current call's arguments."""
        self.calls = 0

    def push(self, text: str) -> list[ToolCallDelta]:
        """Add ``text``; return the output that it completes."""
        if self._state is _State.TEXT:
            return self._parse_text(text)
        self._buffer += text
        return self._parse_buffer()

    def flush(self) -> list[ToolCallDelta]:
        """Return the remaining output at the end of the answer. An unfinished call stays unfinished."""
        if self._state is _State.TEXT:
            rest = self._markers.flush_after(self._opening)
            self._opening = ""
            return [ToolCallDelta(text=rest)] if rest else []
        if self._state is _State.HEAD:
            return self._parse_object(self._buffer)
        return []

    def _parse_text(self, text: str) -> list[ToolCallDelta]:
        if not self._is_text:
            # An answer that starts with a bare call object is a call.
            self._opening += text
            start = re.sub(r"\s", "", self._opening)
            if _BARE_CALL.match(self._opening):
                self._state, self._buffer, self._opening = _State.BETWEEN, self._opening, ""
                return self._parse_buffer()
            if _BARE_CALL_PREFIX.startswith(start):
                return []
            text, self._opening = self._opening, ""
            self._is_text = True
        shown = self._markers.push(text)
        deltas = [ToolCallDelta(text=shown)] if shown else []
        if self._markers.matched is not None:
            self._state = _State.BETWEEN
            self._named_outside = self._markers.matched == _NAME_MARKER
            self._buffer = self._markers.remainder
            deltas += self._parse_buffer()
        return deltas

    def _parse_buffer(self) -> list[ToolCallDelta]:
        deltas: list[ToolCallDelta] = []
        while self._buffer:
            before = (self._state, self._buffer)
            if self._state is _State.BETWEEN:
                deltas += self._find_object()
            elif self._state is _State.HEAD:
                deltas += self._parse_head()
            elif self._state is _State.ARGUMENTS:
                end = self._end.find(self._buffer)
                part, self._buffer = self._buffer[:end], "" if end is None else self._buffer[end:]
                deltas.append(ToolCallDelta(index=self.calls - 1, arguments=part))
                self._state = _State.ARGUMENTS if end is None else self._after
            else:
                at = self._buffer.find("}")
                self._buffer = self._buffer[at + 1 :] if at >= 0 else ""
                self._state = _State.BETWEEN if at >= 0 else _State.TAIL
            if before == (self._state, self._buffer):
                break
        return deltas

    def _find_object(self) -> list[ToolCallDelta]:
        """Find where the next object begins, and whether it is a whole call or only arguments."""
        at = self._buffer.find("{")
        if at < 0:
            self._buffer = self._buffer[-_NAME_LIMIT:] if self._named_outside else ""
            return []
        before, self._buffer = self._buffer[:at], self._buffer[at:]
        self._end = JsonValueEnd()
        name = _CALL_NAME.search(before) if self._named_outside else None
        if name is None:
            self._state, self._after = _State.HEAD, _State.TAIL
            return []
        self._state, self._after = _State.ARGUMENTS, _State.BETWEEN
        return [self._begin_call(name[1])]

    def _parse_head(self) -> list[ToolCallDelta]:
        found = _CALL_HEAD.match(self._buffer)
        if found:
            self._buffer = self._buffer[found.end() :]
            self._state, self._end = _State.ARGUMENTS, JsonValueEnd()
            return [self._begin_call(_unescaped(found[1]))]
        # With the keys in another order, the object is parsed once it is complete.
        end = JsonValueEnd().find(self._buffer)
        if end is None:
            return []
        whole, self._buffer = self._buffer[:end], self._buffer[end:]
        self._state = _State.BETWEEN
        return self._parse_object(whole)

    def _begin_call(self, name: str) -> ToolCallDelta:
        self.calls += 1
        return ToolCallDelta(index=self.calls - 1, name=name)

    def _parse_object(self, text: str) -> list[ToolCallDelta]:
        try:
            call = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            return [ToolCallDelta(text=text)]
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return [ToolCallDelta(text=text)]
        arguments = call.get("arguments", call.get("parameters", {}))
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return [self._begin_call(call["name"]), ToolCallDelta(index=self.calls - 1, arguments=written)]
