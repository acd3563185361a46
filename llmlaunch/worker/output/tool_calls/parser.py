"""Follows an answer while it is generated, and separates its calls from its text. Pure.

No text is lost: what turns out not to be a call is passed on as it was written, its marks included.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from llmlaunch.worker.output.stops import StopStringFilter
from llmlaunch.worker.output.tool_calls.cursor import BLANKS, BracketEnd, Cursor
from llmlaunch.worker.output.tool_calls.types import (
    Begin,
    CallFormat,
    Calls,
    Leave,
    Reject,
    Skip,
    ToolCallDelta,
    Tools,
    merged,
)

ENDS = BLANKS + ",;]"
"""What may stand after the last call of an answer, and carries no meaning."""


class _State(Enum):
    START = auto()
    """Nothing but blanks so far: an answer may begin with a call that has no mark."""
    TEXT = auto()
    SECTION = auto()
    ARGUMENTS = auto()
    TAIL = auto()
    """After the arguments, before the end of the object that holds them."""


class CallParser:
    """Follows one answer.

    ``formats``: those with marks. ``bare``: how calls without a mark are written, at the beginning of an answer.
    ``imposed``: the whole answer consists of calls in this format, because structured output enforces it.
    ``parallel`` False: only the first call counts.
    """

    def __init__(
        self,
        formats: Sequence[CallFormat],
        tools: Tools,
        *,
        bare: Sequence[CallFormat] = (),
        imposed: CallFormat | None = None,
        parallel: bool = True,
    ) -> None:
        self._by_mark = {mark: form for form in formats for mark in form.markers}
        self._tools = tools
        self._bare = tuple(bare)
        self._parallel = parallel
        self._cursor = Cursor()
        self._format = imposed
        self._state = _State.SECTION if imposed is not None else _State.START if bare else _State.TEXT
        self._markers = StopStringFilter(tuple(self._by_mark))
        self._held = ""
        """Syntax that is text if no call follows."""
        self._end = BracketEnd()
        self._wrapped = False
        self._gap: str | None = None
        """Blanks after a call, which are text only if text follows; None: not after a call."""
        self.calls = 0

    def push(self, text: str) -> list[ToolCallDelta]:
        """What ``text`` completes: at most one delta a call."""
        self._cursor.push(text)
        return merged(self._run(), parallel=self._parallel)

    def flush(self) -> list[ToolCallDelta]:
        """The rest, at the end of the answer; an unfinished call stays as it is."""
        self._cursor.final = True
        deltas = self._run()
        rest = self._cursor.take()
        if self._state is _State.TEXT:
            deltas.append(self._shown(self._markers.flush_after(rest)))
        elif self._state in (_State.START, _State.SECTION):
            whole = self._held + rest
            ends = self._state is _State.SECTION and not self._held and not rest.strip(ENDS)
            deltas.append(ToolCallDelta(text="" if ends else whole))
        return merged(deltas, parallel=self._parallel)

    def _run(self) -> list[ToolCallDelta]:
        deltas: list[ToolCallDelta] = []
        steps = {
            _State.START: self._start,
            _State.TEXT: self._text,
            _State.SECTION: self._section,
            _State.ARGUMENTS: self._arguments,
            _State.TAIL: self._tail,
        }
        while (self._cursor.rest or self._cursor.final) and (found := steps[self._state]()) is not None:
            deltas += found
        return deltas

    def _start(self) -> list[ToolCallDelta] | None:
        """A call without a mark, or text."""
        blank = self._cursor.blank()
        if blank == len(self._cursor.rest) and not self._cursor.final:
            return None
        undecided = False
        for form in self._bare:
            step = form.scan(self._cursor, self._tools)
            if step is None:
                undecided = True
            elif isinstance(step, Begin | Calls):
                self._state, self._format = _State.SECTION, form
                return []
        if undecided:
            return None
        self._state = _State.TEXT
        return []

    def _text(self) -> list[ToolCallDelta] | None:
        if not self._cursor.rest:
            return None
        shown = self._markers.push(self._cursor.take())
        delta = self._shown(shown)
        if self._markers.matched is not None:
            self._gap = None
            self._format = self._by_mark[self._markers.matched]
            self._state, self._held = _State.SECTION, self._markers.matched
            self._cursor.push(self._markers.remainder)
            self._markers = StopStringFilter(tuple(self._by_mark))
        return [delta]

    def _shown(self, text: str) -> ToolCallDelta:
        """``text``, without the blanks between two calls."""
        if self._gap is None or not text:
            return ToolCallDelta(text=text)
        whole = self._gap + text
        self._gap = None if whole.strip(BLANKS) else whole
        return ToolCallDelta() if self._gap is not None else ToolCallDelta(text=whole)

    def _section(self) -> list[ToolCallDelta] | None:
        if self._format is None or not self._cursor.rest:
            return None
        step = self._format.scan(self._cursor, self._tools)
        if step is None:
            return None
        if isinstance(step, Reject):
            return self._leave("")
        if isinstance(step, Leave):
            return self._leave(self._cursor.take(step.size))
        taken = self._cursor.take(step.size)
        if isinstance(step, Skip):
            self._held = self._held + taken if self._held or step.opens else ""
            return []
        self._held = ""
        if isinstance(step, Calls):
            return [self._begin(name, arguments) for name, arguments in step.calls]
        self._state, self._end, self._wrapped = _State.ARGUMENTS, BracketEnd(), step.wrapped
        return [self._begin(step.name)]

    def _leave(self, syntax: str) -> list[ToolCallDelta]:
        """Text follows. What was held is text as well if there was no call after it."""
        text = self._held + syntax if self._held else ""
        self._state, self._format, self._held = _State.TEXT, None, ""
        self._gap = None if text else ""
        return [ToolCallDelta(text=text)]

    def _arguments(self) -> list[ToolCallDelta] | None:
        if not self._cursor.rest:
            return None
        end = self._end.find(self._cursor.rest)
        piece = self._cursor.take(end)
        if end is not None:
            self._state = _State.TAIL if self._wrapped else _State.SECTION
            self._end = BracketEnd(depth=1)
        return [ToolCallDelta(index=self.calls - 1, arguments=piece)]

    def _tail(self) -> list[ToolCallDelta] | None:
        if not self._cursor.rest:
            return None
        end = self._end.find(self._cursor.rest)
        self._cursor.take(end)
        if end is not None:
            self._state = _State.SECTION
        return []

    def _begin(self, name: str, arguments: str = "") -> ToolCallDelta:
        self.calls += 1
        return ToolCallDelta(index=self.calls - 1, name=name, arguments=arguments)
