"""Separates a model's reasoning from its answer while it is generated. Pure.

Models like DeepSeek-R1 write ``<think>…</think>`` and then the answer. Some chat templates open the block themselves, in
the prompt; the answer then begins inside it. The names of the response fields are DeepSeek's and vLLM's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from llmlaunch.worker.output.stops import StopStringFilter

OPEN, CLOSE = "<think>", "</think>"
MARKERS = (OPEN, CLOSE)


@dataclass(frozen=True, slots=True)
class ReasoningSplit:
    """Part of an answer, split into reasoning and the text after it."""

    reasoning: str = ""
    text: str = ""


def starts_inside(prompt: str) -> bool:
    """Whether the answer to ``prompt`` begins inside a reasoning block."""
    return prompt.rstrip().endswith(OPEN)


def is_unclosed(text: str) -> bool:
    """Whether an unfinished answer is still inside its reasoning block."""
    return text.lstrip().startswith(OPEN) and CLOSE not in text


class _State(Enum):
    BEFORE = auto()
    """Only whitespace so far, or the beginning of a tag."""
    INSIDE = auto()
    BETWEEN = auto()
    """Whitespace between reasoning and answer, which belongs to neither."""
    AFTER = auto()


class ReasoningParser:
    """Parses one answer as it arrives. Only a block at its beginning is reasoning: later tags are text."""

    def __init__(self, *, inside: bool = False) -> None:
        self._state = _State.INSIDE if inside else _State.BEFORE
        self._held = ""
        self._close = StopStringFilter((CLOSE,))
        self._begun = False
        self._tail = ""
        """Newlines that belong to the reasoning only if it goes on."""

    @property
    def inside(self) -> bool:
        """Whether the text so far ends inside the reasoning block."""
        return self._state is _State.INSIDE

    def push(self, text: str) -> ReasoningSplit:
        """Add ``text``; return the output that it completes."""
        if self._state is _State.BEFORE:
            self._held += text
            start = self._held.lstrip()
            if OPEN.startswith(start) and start != OPEN:
                return ReasoningSplit()
            held, self._held = self._held, ""
            if not start.startswith(OPEN):
                self._state = _State.AFTER
                return ReasoningSplit(text=held)
            self._state = _State.INSIDE
            text = start.removeprefix(OPEN)
        if self._state is _State.INSIDE:
            return self._reason(text)
        return ReasoningSplit(text=self._answer(text))

    def flush(self) -> ReasoningSplit:
        """Return what was held back, at the end of the answer."""
        held, self._held = self._held, ""
        if self._state is _State.INSIDE:
            return ReasoningSplit(reasoning=self._trimmed(self._close.flush_after("")) + self._tail)
        return ReasoningSplit(text=held)

    def _reason(self, text: str) -> ReasoningSplit:
        reasoning = self._trimmed(self._close.push(text))
        if self._close.matched is None:
            return ReasoningSplit(reasoning=reasoning)
        self._state = _State.BETWEEN
        return ReasoningSplit(reasoning, self._answer(self._close.remainder))

    def _trimmed(self, reasoning: str) -> str:
        """Without the newlines next to the tags."""
        if not self._begun:
            reasoning = reasoning.lstrip("\n")
            self._begun = bool(reasoning)
        whole = self._tail + reasoning
        shown = whole.rstrip("\n")
        self._tail = whole[len(shown) :]
        return shown

    def _answer(self, text: str) -> str:
        if self._state is _State.BETWEEN:
            text = text.lstrip()
            if text:
                self._state = _State.AFTER
        return text
