"""What every parser of tool calls takes and returns. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """New output: either ``text``, or part of call number ``index``; ``name`` is set when a call begins."""

    text: str = ""
    index: int = -1
    """The call's position in the answer, from 0; -1 for text."""
    name: str = ""
    arguments: str = ""
    """The next part of the arguments, as JSON."""


class ToolCallParser(Protocol):
    """Parses one answer as its text arrives, in parts of any size."""

    def push(self, text: str) -> list[ToolCallDelta]:
        """Add ``text``; return the output that it completes."""

    def flush(self) -> list[ToolCallDelta]:
        """Return the remaining output at the end of the answer. An unfinished call stays unfinished."""
