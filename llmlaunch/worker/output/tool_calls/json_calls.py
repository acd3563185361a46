"""Calls as JSON objects with a name and arguments.

::

    Hermes, Qwen, Granite 4   <tool_call>{"name": "f", "arguments": {…}}</tool_call>
    Granite 3                 <|tool_call|>[{"name": "f", "arguments": {…}}, …]
    MiniMax M1                <tool_calls>{"name": "f", "arguments": {…}}</tool_calls>
    Mistral                   [TOOL_CALLS] [{"name": "f", "arguments": {…}}, …]
    Llama 3                   {"name": "f", "parameters": {…}}            (the whole answer), or after <|python_tag|>

Pure.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

from llmlaunch.worker.output.tool_calls.cursor import BLANKS, Cursor
from llmlaunch.worker.output.tool_calls.markers import marker_step
from llmlaunch.worker.output.tool_calls.types import Begin, Calls, Reject, Skip, Step, Tools, written

_STRING = r'"((?:[^"\\]|\\.)*)"'
_HEAD = re.compile(rf'\{{\s*"name"\s*:\s*{_STRING}\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{{)')
_FIRST_KEY = re.compile(rf"\{{\s*{_STRING}")
_FIRST_NAME = re.compile(rf'\{{\s*"name"\s*:\s*(?:{_STRING}|([^\s"]))')
_KEYS = ("name", "arguments", "parameters", "type", "function", "id")
"""Keys that an object which is a call may begin with."""


@dataclass(frozen=True, slots=True)
class JsonCalls:
    """Objects between ``open`` and ``close``, alone or in lists.

    ``declared_only``: an object is a call only if its name is that of a declared function, and it has arguments.
    """

    open: str = ""
    close: str = ""
    declared_only: bool = False

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.open,) if self.open else ()

    def scan(self, at: Cursor, tools: Tools) -> Step | None:
        lead = at.blank(BLANKS + ",;")
        step = marker_step(at, lead, opens=self.markers, leaves=(self.close,) if self.close else ())
        if not isinstance(step, Reject):
            return step
        lead = at.blank(BLANKS + ",;[")
        if lead == len(at.rest):
            return None
        if at.rest[lead] == "]":
            return Skip(lead + 1)
        return self._object(at, lead, tools) if at.rest[lead] == "{" else Reject()

    def _object(self, at: Cursor, start: int, tools: Tools) -> Step | None:
        head = _HEAD.match(at.rest, start)
        if head:
            name = unescaped(head[1])
            return Reject() if self.declared_only and name not in tools else Begin(head.end(), name, True)
        if self.declared_only and not _may_be_call(at.rest, start, tools):
            return Reject()
        # Other orders of keys are read when the object is complete.
        end = at.value_end(start)
        if end is None:
            return None
        call = read(at.rest[start:end], needs_arguments=self.declared_only)
        if call is None or (self.declared_only and call[0] not in tools):
            return Reject()
        return Calls(end, (call,))


def _may_be_call(text: str, start: int, tools: Tools) -> bool:
    """Whether the beginning of an object can be that of a call to a declared function: other objects are not held back."""
    key = _FIRST_KEY.match(text, start)
    if key is None:
        begun = text[start + 1 :].lstrip()
        return any(f'"{name}"'.startswith(begun) for name in _KEYS)
    name = _FIRST_NAME.match(text, start)
    return key[1] in _KEYS and (name is None or (name[1] is not None and unescaped(name[1]) in tools))


def read(text: str, *, needs_arguments: bool = False) -> tuple[str, str] | None:
    """Name and arguments (JSON text) of a complete object; None if it is not a call."""
    call = parsed(text)
    if isinstance(call, dict) and isinstance(call.get("function"), dict):
        call = call["function"]
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
        return None
    given = [call[key] for key in ("arguments", "parameters") if key in call]
    if needs_arguments and not given:
        return None
    arguments = given[0] if given and given[0] is not None else {}
    return call["name"], arguments if isinstance(arguments, str) else written(arguments)


def parsed(text: str) -> Any:
    """The value of JSON text, or of a Python literal, which small models write instead; None if it is neither."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def unescaped(text: str) -> str:
    """A JSON string without its quotes; unchanged if a model writes an invalid escape."""
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text
