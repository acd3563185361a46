"""Separates a model's reasoning from its answer while it is generated. Pure.

Models like DeepSeek-R1 write ``<think>…</think>`` and then the answer. Some chat templates open the block themselves, in
the prompt; then the answer begins inside it. The field names are DeepSeek's and vLLM's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from llmlaunch.worker.output.stops import StopHolder

OPEN, CLOSE = "<think>", "</think>"
MARKS = (OPEN, CLOSE)


@dataclass(frozen=True, slots=True)
class Split:
    """A piece of text, split into reasoning and the answer's text after it."""

    thought: str = ""
    text: str = ""


def opened(prompt: str) -> bool:
    """Whether the answer to ``prompt`` begins inside a reasoning block."""
    return prompt.rstrip().endswith(OPEN)


def unclosed(text: str) -> bool:
    """Whether an unfinished answer is still inside its reasoning block."""
    return text.lstrip().startswith(OPEN) and CLOSE not in text


class _ThoughtState(Enum):
    BEFORE = auto()
    """Only whitespace so far, or the beginning of a tag."""
    INSIDE = auto()
    BETWEEN = auto()
    """Whitespace between reasoning and answer, which belongs to neither."""
    AFTER = auto()


class ThoughtParser:
    """Follows one answer. Only a block at its beginning is reasoning: later tags are text."""

    def __init__(self, *, inside: bool = False) -> None:
        self._state = _ThoughtState.INSIDE if inside else _ThoughtState.BEFORE
        self._held = ""
        self._close = StopHolder((CLOSE,))
        self._begun = False
        self._tail = ""
        """Newlines that belong to the reasoning only if it goes on."""

    @property
    def inside(self) -> bool:
        return self._state is _ThoughtState.INSIDE

    def push(self, text: str) -> Split:
        """What ``text`` completes."""
        if self._state is _ThoughtState.BEFORE:
            self._held += text
            start = self._held.lstrip()
            if OPEN.startswith(start) and start != OPEN:
                return Split()
            held, self._held = self._held, ""
            if not start.startswith(OPEN):
                self._state = _ThoughtState.AFTER
                return Split(text=held)
            self._state = _ThoughtState.INSIDE
            text = start.removeprefix(OPEN)
        if self._state is _ThoughtState.INSIDE:
            return self._think(text)
        return Split(text=self._answer(text))

    def flush(self) -> Split:
        """What was held back, when no text follows."""
        held, self._held = self._held, ""
        if self._state is _ThoughtState.INSIDE:
            return Split(thought=self._trimmed(self._close.flush_after("")) + self._tail)
        return Split(text=held)

    def _think(self, text: str) -> Split:
        thought = self._trimmed(self._close.push(text))
        if self._close.hit is None:
            return Split(thought=thought)
        self._state = _ThoughtState.BETWEEN
        return Split(thought, self._answer(self._close.rest))

    def _trimmed(self, thought: str) -> str:
        """Without the newlines next to the tags."""
        if not self._begun:
            thought = thought.lstrip("\n")
            self._begun = bool(thought)
        whole = self._tail + thought
        shown = whole.rstrip("\n")
        self._tail = whole[len(shown) :]
        return shown

    def _answer(self, text: str) -> str:
        if self._state is _ThoughtState.BETWEEN:
            text = text.lstrip()
            if text:
                self._state = _ThoughtState.AFTER
        return text
