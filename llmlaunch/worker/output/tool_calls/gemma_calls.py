"""Gemma's own notation of calls, in which strings stand between special tokens.

::

    FunctionGemma   <start_function_call>call:f{a:<escape>x<escape>,n:1}<end_function_call>
    Gemma 4         <|tool_call>call:f{a:<|"|>x<|"|>,n:1}<tool_call|>

Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from llmlaunch.worker.output.tool_calls.cursor import BLANKS, Cursor
from llmlaunch.worker.output.tool_calls.json_calls import parsed
from llmlaunch.worker.output.tool_calls.markers import marker_step
from llmlaunch.worker.output.tool_calls.types import Calls, Reject, Step, Tools, written

_HEAD = re.compile(r"\s*call:\s*([\w.-]+)\s*(?=\{)")
_KEY = re.compile(r'\s*"?([^\s":,{}\[\]]+)"?\s*:')
_MOST_DEPTH = 64


class _Malformed(Exception):
    pass


@dataclass(frozen=True, slots=True)
class GemmaCalls:
    """Calls between ``open`` and ``close``; ``quote`` begins and ends a string."""

    open: str
    close: str
    quote: str

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.open,)

    def scan(self, at: Cursor, tools: Tools) -> Step | None:
        lead = at.blank()
        if lead == len(at.rest):
            return None
        step = marker_step(at, lead, opens=self.markers, leaves=(self.close,))
        if not isinstance(step, Reject):
            return step
        end = at.find(self.close)
        if end < 0:
            if not at.final:
                return None if at.may_start("call:", lead) or _HEAD_BEGUN.match(at.rest) else Reject()
            end = len(at.rest)  # the end mark is the model's end token
        head = _HEAD.match(at.rest)
        if head is None:
            return Reject()
        try:
            arguments, stop = self._object(at.rest, head.end(), 0)
        except _Malformed:
            return Reject()
        if at.rest[stop:end].strip():
            return Reject()
        return Calls(end, ((head[1], written(arguments)),))

    def _object(self, text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        at += 1
        while True:
            at = _past(text, at, BLANKS + ",")
            if text.startswith("}", at):
                return found, at + 1
            quoted = text.startswith(self.quote, at)
            key = None if quoted else _KEY.match(text, at)
            if quoted:
                name, at = self._string(text, at)
                at = _past(text, at, BLANKS + ":")
            elif key:
                name, at = key[1], key.end()
            else:
                raise _Malformed
            found[name], at = self._value(text, at, depth + 1)

    def _value(self, text: str, at: int, depth: int) -> tuple[Any, int]:
        at = _past(text, at, BLANKS)
        if depth > _MOST_DEPTH or at >= len(text):
            raise _Malformed
        if text.startswith(self.quote, at):
            return self._string(text, at)
        if text[at] == "{":
            return self._object(text, at, depth)
        if text[at] == "[":
            items: list[Any] = []
            at += 1
            while not text.startswith("]", at := _past(text, at, BLANKS + ",")):
                item, at = self._value(text, at, depth + 1)
                items.append(item)
            return items, at + 1
        end = at
        while end < len(text) and text[end] not in ",}]":
            end += 1
        word = text[at:end].strip()
        if not word:
            raise _Malformed
        value = parsed(word)
        return (word if value is None and word != "null" else value), end

    def _string(self, text: str, at: int) -> tuple[str, int]:
        start = at + len(self.quote)
        end = text.find(self.quote, start)
        if end < 0:
            raise _Malformed
        return text[start:end], end + len(self.quote)


_HEAD_BEGUN = re.compile(r"\s*call:")


def _past(text: str, at: int, skipped: str) -> int:
    while at < len(text) and text[at] in skipped:
        at += 1
    return at


FUNCTION_GEMMA = GemmaCalls("<start_function_call>", "<end_function_call>", "<escape>")
GEMMA_4 = GemmaCalls("<|tool_call>", "<tool_call|>", '<|"|>')
