"""What a model thinks before it answers, told apart from the answer while it comes. Pure.

Models of the DeepSeek-R1 kind write ``<think>…</think>`` and then the answer. Some chat templates open the block
themselves, in the prompt; then the answer begins inside it. The names of the fields are DeepSeek's and vLLM's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from llmlaunch.worker.output.stops import StopHolder
from llmlaunch.worker.tokenization.tokenizer import Codec

OPEN, CLOSE = "<think>", "</think>"
MARKS = (OPEN, CLOSE)


@dataclass(frozen=True, slots=True)
class Split:
    """What a piece of text is: ``thought`` first, then ``text``."""

    thought: str = ""
    text: str = ""


def thinks(codec: Codec) -> bool:
    """Whether the model was taught to: its template or its vocabulary knows the marks."""
    return codec.knows(CLOSE)


def opened(prompt: str) -> bool:
    """Whether the answer to ``prompt`` begins inside a block of thoughts."""
    return prompt.rstrip().endswith(OPEN)


def unclosed(text: str) -> bool:
    """Whether an answer so far is still inside its thoughts."""
    return text.lstrip().startswith(OPEN) and CLOSE not in text


class _Place(Enum):
    BEFORE = auto()
    """Nothing but blanks came, or the beginning of a mark."""
    INSIDE = auto()
    BETWEEN = auto()
    """Blanks between thoughts and answer, which are nobody's."""
    AFTER = auto()


class ThoughtParser:
    """Follows one answer. A block is one only at the answer's beginning: marks further on are text."""

    def __init__(self, *, inside: bool = False) -> None:
        self._place = _Place.INSIDE if inside else _Place.BEFORE
        self._held = ""
        self._close = StopHolder((CLOSE,))
        self._begun = False
        self._tail = ""
        """Newlines that are part of the thought only if it goes on."""

    @property
    def inside(self) -> bool:
        return self._place is _Place.INSIDE

    def push(self, text: str) -> Split:
        """What ``text`` makes certain."""
        if self._place is _Place.BEFORE:
            self._held += text
            start = self._held.lstrip()
            if OPEN.startswith(start) and start != OPEN:
                return Split()
            held, self._held = self._held, ""
            if not start.startswith(OPEN):
                self._place = _Place.AFTER
                return Split(text=held)
            self._place = _Place.INSIDE
            text = start.removeprefix(OPEN)
        if self._place is _Place.INSIDE:
            return self._think(text)
        return Split(text=self._answer(text))

    def flush(self) -> Split:
        """What was held back, when no text follows."""
        held, self._held = self._held, ""
        if self._place is _Place.INSIDE:
            return Split(thought=self._trimmed(self._close.flush_after("")) + self._tail)
        return Split(text=held)

    def _think(self, text: str) -> Split:
        thought = self._trimmed(self._close.push(text))
        if self._close.hit is None:
            return Split(thought=thought)
        self._place = _Place.BETWEEN
        return Split(thought, self._answer(self._close.rest))

    def _trimmed(self, thought: str) -> str:
        """Without the newlines that only stand between marks and thought."""
        if not self._begun:
            thought = thought.lstrip("\n")
            self._begun = bool(thought)
        whole = self._tail + thought
        shown = whole.rstrip("\n")
        self._tail = whole[len(shown) :]
        return shown

    def _answer(self, text: str) -> str:
        if self._place is _Place.BETWEEN:
            text = text.lstrip()
            if text:
                self._place = _Place.AFTER
        return text
