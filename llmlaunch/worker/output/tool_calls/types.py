"""What the parser of tool calls gives out, and the steps that a format tells it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmlaunch.worker.output.tool_calls.cursor import Cursor

Tools = Mapping[str, Mapping[str, Any]]
"""JSON schema of the parameters of each declared function, by its name."""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """New output: ``text`` or ``reasoning``, or a part of call ``index``; ``name`` is set at the beginning of a call."""

    text: str = ""
    index: int = -1
    name: str = ""
    arguments: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Skip:
    """``size`` characters are syntax. ``opens``: they are text after all if no call follows."""

    size: int
    opens: bool = False


@dataclass(frozen=True, slots=True)
class Begin:
    """After ``size`` characters a JSON value begins: the arguments of ``name``. They are passed on as they come.

    ``wrapped``: the value is part of an object, whose end follows.
    """

    size: int
    name: str
    wrapped: bool = False


@dataclass(frozen=True, slots=True)
class Calls:
    """``size`` characters are complete calls: names and arguments, the latter as JSON text."""

    size: int
    calls: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Leave:
    """After ``size`` characters of syntax the calls are over."""

    size: int


@dataclass(frozen=True, slots=True)
class Reject:
    """What follows is not a call: it is text."""


Step = Skip | Begin | Calls | Leave | Reject


class ToolCallParser(Protocol):
    """Parses one answer as its text arrives, in parts of any size."""

    def push(self, text: str) -> list[ToolCallDelta]:
        """Add ``text``; return the output that it completes: at most one delta a call."""

    def flush(self) -> list[ToolCallDelta]:
        """Return the remaining output at the end of the answer. An unfinished call stays unfinished."""


class CallFormat(Protocol):
    """One way of writing calls."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Strings of which each begins a section of calls."""

    def scan(self, at: Cursor, tools: Tools) -> Step | None:
        """Return what stands at a position of a section, outside arguments; None as long as more text could change that."""


def written(arguments: Any) -> str:
    """Arguments as JSON text, as clients expect them."""
    return json.dumps(arguments, ensure_ascii=False)


def merged(deltas: Sequence[ToolCallDelta], *, parallel: bool) -> list[ToolCallDelta]:
    """``deltas`` without empty ones, and with neighbours joined that belong to the same call or are both not part of one.

    Clients expect one entry a call. ``parallel`` False: only the first call counts.
    """
    found: list[ToolCallDelta] = []
    for delta in deltas:
        if delta == ToolCallDelta() or (delta.index > 0 and not parallel):
            continue
        if not found or found[-1].index != delta.index:
            found.append(delta)
            continue
        last = found[-1]
        found[-1] = ToolCallDelta(
            text=last.text + delta.text,
            index=last.index,
            name=last.name,
            arguments=last.arguments + delta.arguments,
            reasoning=last.reasoning + delta.reasoning,
        )
    return found
