"""Finds tool calls in an answer's text while it is generated. Pure.

Models write calls as JSON objects with a name and arguments, after a marker that depends on the model family::

    Hermes, Qwen    <tool_call>{"name": "f", "arguments": {…}}</tool_call>
    Mistral         [TOOL_CALLS] [{"name": "f", "arguments": {…}}, …]
                    [TOOL_CALLS]f[ARGS]{…}[TOOL_CALLS]g[ARGS]{…}  (tokenizers v11 and later; some with [CALL_ID]…)
    Llama 3         {"name": "f", "parameters": {…}}            (the whole answer), or after <|python_tag|>

Text between the objects differs, and carries no meaning: it is skipped.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum, auto

from llmlaunch.worker.output.stops import StopHolder

_NAMES = "[TOOL_CALLS]"
"""After this marker the name may stand before the object, which then contains only the arguments."""
MARKS = ("<tool_call>", _NAMES, "<|python_tag|>")
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\S)')
_NAME = re.compile(r"(?:^|\[TOOL_CALLS\])\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*\w*\s*)?(?:\[ARGS\]\s*)?$")
_NAME_LIMIT = 512
"""Number of characters in which the name of a call is searched."""
_BARE = re.compile(r'\s*\{\s*"name"\s*:')
_BARE_SO_FAR = '{"name":'


def _unescaped(written: str) -> str:
    """A JSON string without its quotes; unchanged if a model writes an invalid escape."""
    try:
        return str(json.loads(f'"{written}"', strict=False))
    except ValueError:
        return written


@dataclass(frozen=True, slots=True)
class CallDelta:
    """New output: ``text``, or a part of call ``index``; ``name`` is set at the beginning of a call."""

    text: str = ""
    index: int = -1
    name: str = ""
    arguments: str = ""


class _CallState(Enum):
    TEXT = auto()
    BETWEEN = auto()
    HEAD = auto()
    ARGUMENTS = auto()
    TAIL = auto()


class JsonEnd:
    """Finds the end of one JSON value in streamed text."""

    def __init__(self) -> None:
        self._depth = 0
        self._string = False
        self._escaped = False

    def find(self, text: str) -> int | None:
        """Index in ``text`` after the end of the value; None if it goes on. For objects, arrays and strings."""
        for at, letter in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._string:
                self._escaped = letter == "\\"
                self._string = letter != '"'
            elif letter in "{[":
                self._depth += 1
            elif letter in "}]":
                self._depth -= 1
            else:
                self._string = letter == '"'
            if self._depth <= 0 and not self._string and not letter.isspace():
                return at + 1
        return None


class CallParser:
    """Follows one answer. ``marked`` False: the whole answer consists of calls (structured output enforced it)."""

    def __init__(self, *, marked: bool = True) -> None:
        self._state = _CallState.TEXT if marked else _CallState.BETWEEN
        self._marks = StopHolder(MARKS)
        self._started = False
        self._begun = ""
        self._buffer = ""
        self._end = JsonEnd()
        self._names = False
        """Whether names may stand before the object."""
        self._after = _CallState.TAIL
        """The state after the current call's arguments."""
        self.calls = 0

    def push(self, text: str) -> list[CallDelta]:
        """What ``text`` completes."""
        if self._state is _CallState.TEXT:
            return self._text(text)
        self._buffer += text
        return self._inside()

    def flush(self) -> list[CallDelta]:
        """The rest, at the end of the answer; an unfinished call stays as it is."""
        if self._state is _CallState.TEXT:
            rest = self._marks.flush_after(self._begun)
            self._begun = ""
            return [CallDelta(text=rest)] if rest else []
        if self._state is _CallState.HEAD:
            return self._whole(self._buffer)
        return []

    def _text(self, text: str) -> list[CallDelta]:
        if not self._started:
            # An answer that starts with a bare call object is a call.
            self._begun += text
            start = re.sub(r"\s", "", self._begun)
            if _BARE.match(self._begun):
                self._state, self._buffer, self._begun = _CallState.BETWEEN, self._begun, ""
                return self._inside()
            if _BARE_SO_FAR.startswith(start):
                return []
            text, self._begun = self._begun, ""
            self._started = True
        shown = self._marks.push(text)
        deltas = [CallDelta(text=shown)] if shown else []
        if self._marks.hit is not None:
            self._state = _CallState.BETWEEN
            self._names = self._marks.hit == _NAMES
            self._buffer = self._marks.rest
            deltas += self._inside()
        return deltas

    def _inside(self) -> list[CallDelta]:
        deltas: list[CallDelta] = []
        while self._buffer:
            before = (self._state, self._buffer)
            if self._state is _CallState.BETWEEN:
                deltas += self._between()
            elif self._state is _CallState.HEAD:
                deltas += self._head()
            elif self._state is _CallState.ARGUMENTS:
                end = self._end.find(self._buffer)
                piece, self._buffer = self._buffer[:end], "" if end is None else self._buffer[end:]
                deltas.append(CallDelta(index=self.calls - 1, arguments=piece))
                self._state = _CallState.ARGUMENTS if end is None else self._after
            else:
                at = self._buffer.find("}")
                self._buffer = self._buffer[at + 1 :] if at >= 0 else ""
                self._state = _CallState.BETWEEN if at >= 0 else _CallState.TAIL
            if before == (self._state, self._buffer):
                break
        return deltas

    def _between(self) -> list[CallDelta]:
        """Find the beginning of the next object, and whether it is a call or its arguments."""
        at = self._buffer.find("{")
        if at < 0:
            self._buffer = self._buffer[-_NAME_LIMIT:] if self._names else ""
            return []
        before, self._buffer = self._buffer[:at], self._buffer[at:]
        self._end = JsonEnd()
        name = _NAME.search(before) if self._names else None
        if name is None:
            self._state, self._after = _CallState.HEAD, _CallState.TAIL
            return []
        self._state, self._after = _CallState.ARGUMENTS, _CallState.BETWEEN
        return [self._begin(name[1])]

    def _head(self) -> list[CallDelta]:
        found = _HEAD.match(self._buffer)
        if found:
            self._buffer = self._buffer[found.end() :]
            self._state, self._end = _CallState.ARGUMENTS, JsonEnd()
            return [self._begin(_unescaped(found[1]))]
        # Other orders of keys are parsed when the object is complete.
        end = JsonEnd().find(self._buffer)
        if end is None:
            return []
        whole, self._buffer = self._buffer[:end], self._buffer[end:]
        self._state = _CallState.BETWEEN
        return self._whole(whole)

    def _begin(self, name: str) -> CallDelta:
        self.calls += 1
        return CallDelta(index=self.calls - 1, name=name)

    def _whole(self, text: str) -> list[CallDelta]:
        try:
            call = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            return [CallDelta(text=text)]
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return [CallDelta(text=text)]
        arguments = call.get("arguments", call.get("parameters", {}))
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return [self._begin(call["name"]), CallDelta(index=self.calls - 1, arguments=written)]
