"""Calls of tools in the text of an answer, found while it comes. Pure.

Models write calls as JSON objects with a name and arguments, behind a mark of their family's own::

    Hermes, Qwen    <tool_call>{"name": "f", "arguments": {…}}</tool_call>
    Mistral         [TOOL_CALLS] [{"name": "f", "arguments": {…}}, …]
                    [TOOL_CALLS]f[ARGS]{…}[TOOL_CALLS]g[ARGS]{…}  (since its eleventh tokenizer; some with [CALL_ID]…)
    Llama 3         {"name": "f", "parameters": {…}}            (the whole answer), or behind <|python_tag|>

What stands between the objects differs, and carries no meaning: it is skipped.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum, auto

from llmlaunch.worker.output.stops import StopHolder

_NAMES = "[TOOL_CALLS]"
"""Behind this mark a name may stand outside of the object, which then is the arguments alone."""
MARKS = ("<tool_call>", _NAMES, "<|python_tag|>")
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\S)')
_NAME = re.compile(r"(?:^|\[TOOL_CALLS\])\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*\w*\s*)?(?:\[ARGS\]\s*)?$")
_NAME_LIMIT = 512
"""Characters in which the name of a call is looked for."""
_BARE = re.compile(r'\s*\{\s*"name"\s*:')
_BARE_SO_FAR = '{"name":'


def _unescaped(written: str) -> str:
    """A JSON string without its quotes; as it is written where a model escapes what JSON does not know."""
    try:
        return str(json.loads(f'"{written}"', strict=False))
    except ValueError:
        return written


@dataclass(frozen=True, slots=True)
class Delta:
    """News of an answer: ``text``, or something of call ``index``; ``name`` is set at the call's beginning."""

    text: str = ""
    index: int = -1
    name: str = ""
    arguments: str = ""


class _Place(Enum):
    TEXT = auto()
    BETWEEN = auto()
    HEAD = auto()
    ARGUMENTS = auto()
    TAIL = auto()


class JsonEnd:
    """Finds the end of one JSON value in text that comes piece by piece."""

    def __init__(self) -> None:
        self._depth = 0
        self._string = False
        self._escaped = False

    def find(self, text: str) -> int | None:
        """Where in ``text`` the value is over; None: it goes on. For objects, arrays and strings."""
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
    """Follows one answer. ``marked`` False: the whole answer is calls (its form was imposed)."""

    def __init__(self, *, marked: bool = True) -> None:
        self._place = _Place.TEXT if marked else _Place.BETWEEN
        self._marks = StopHolder(MARKS)
        self._started = False
        self._begun = ""
        self._buffer = ""
        self._end = JsonEnd()
        self._names = False
        """Names may stand outside."""
        self._after = _Place.TAIL
        """Where the present call's arguments lead."""
        self.calls = 0

    def push(self, text: str) -> list[Delta]:
        """What ``text`` makes certain."""
        if self._place is _Place.TEXT:
            return self._text(text)
        self._buffer += text
        return self._inside()

    def flush(self) -> list[Delta]:
        """What is left at the answer's end; a call that was cut off stays as far as it came."""
        if self._place is _Place.TEXT:
            rest = self._marks.flush_after(self._begun)
            self._begun = ""
            return [Delta(text=rest)] if rest else []
        if self._place is _Place.HEAD:
            return self._whole(self._buffer)
        return []

    def _text(self, text: str) -> list[Delta]:
        if not self._started:
            # An answer that is a bare object from its first letter on is a call.
            self._begun += text
            start = re.sub(r"\s", "", self._begun)
            if _BARE.match(self._begun):
                self._place, self._buffer, self._begun = _Place.BETWEEN, self._begun, ""
                return self._inside()
            if _BARE_SO_FAR.startswith(start):
                return []
            text, self._begun = self._begun, ""
            self._started = True
        shown = self._marks.push(text)
        deltas = [Delta(text=shown)] if shown else []
        if self._marks.hit is not None:
            self._place = _Place.BETWEEN
            self._names = self._marks.hit == _NAMES
            self._buffer = self._marks.rest
            deltas += self._inside()
        return deltas

    def _inside(self) -> list[Delta]:
        deltas: list[Delta] = []
        while self._buffer:
            before = (self._place, self._buffer)
            if self._place is _Place.BETWEEN:
                deltas += self._between()
            elif self._place is _Place.HEAD:
                deltas += self._head()
            elif self._place is _Place.ARGUMENTS:
                end = self._end.find(self._buffer)
                piece, self._buffer = self._buffer[:end], "" if end is None else self._buffer[end:]
                deltas.append(Delta(index=self.calls - 1, arguments=piece))
                self._place = _Place.ARGUMENTS if end is None else self._after
            else:
                at = self._buffer.find("}")
                self._buffer = self._buffer[at + 1 :] if at >= 0 else ""
                self._place = _Place.BETWEEN if at >= 0 else _Place.TAIL
            if before == (self._place, self._buffer):
                break
        return deltas

    def _between(self) -> list[Delta]:
        """Find where the next object begins, and what it is."""
        at = self._buffer.find("{")
        if at < 0:
            self._buffer = self._buffer[-_NAME_LIMIT:] if self._names else ""
            return []
        before, self._buffer = self._buffer[:at], self._buffer[at:]
        self._end = JsonEnd()
        name = _NAME.search(before) if self._names else None
        if name is None:
            self._place, self._after = _Place.HEAD, _Place.TAIL
            return []
        self._place, self._after = _Place.ARGUMENTS, _Place.BETWEEN
        return [self._begin(name[1])]

    def _head(self) -> list[Delta]:
        found = _HEAD.match(self._buffer)
        if found:
            self._buffer = self._buffer[found.end() :]
            self._place, self._end = _Place.ARGUMENTS, JsonEnd()
            return [self._begin(_unescaped(found[1]))]
        # Other orders of the keys are read when the object is whole.
        end = JsonEnd().find(self._buffer)
        if end is None:
            return []
        whole, self._buffer = self._buffer[:end], self._buffer[end:]
        self._place = _Place.BETWEEN
        return self._whole(whole)

    def _begin(self, name: str) -> Delta:
        self.calls += 1
        return Delta(index=self.calls - 1, name=name)

    def _whole(self, text: str) -> list[Delta]:
        try:
            call = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            return [Delta(text=text)]
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            return [Delta(text=text)]
        arguments = call.get("arguments", call.get("parameters", {}))
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return [self._begin(call["name"]), Delta(index=self.calls - 1, arguments=written)]
