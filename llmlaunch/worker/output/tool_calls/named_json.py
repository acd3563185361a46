"""Calls as a function's name and a JSON object of its arguments, with marks around them.

::

    Mistral v11+    [TOOL_CALLS]f[ARGS]{…}[TOOL_CALLS]g[CALL_ID]…[ARGS]{…}
    Kimi K2         <|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{…}<|tool_call_end|>…
    DeepSeek V3     <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f ```json {…} ```<｜tool▁call▁end｜>…
    DeepSeek V3.1   <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{…}<｜tool▁call▁end｜>…

Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmlaunch.worker.output.tool_calls.cursor import BLANKS, Cursor
from llmlaunch.worker.output.tool_calls.json_calls import JsonCalls
from llmlaunch.worker.output.tool_calls.markers import marker_step
from llmlaunch.worker.output.tool_calls.types import Begin, CallFormat, Reject, Step, Tools

_HEAD_LIMIT = 512
"""Characters in which the arguments of a call must begin."""


@dataclass(frozen=True, slots=True)
class NamedJson:
    """``markers`` begin a section, ``opens`` a call; ``skips`` end a call, ``leaves`` the section.

    ``head`` matches what stands between the mark of a call and its arguments; its only group that matches is the name.
    ``objects``: how calls look that are whole objects instead.
    """

    markers: tuple[str, ...]
    head: re.Pattern[str]
    opens: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    objects: CallFormat | None = None

    def scan(self, at: Cursor, tools: Tools) -> Step | None:
        lead = at.blank(BLANKS)
        if lead == len(at.rest):
            return None
        opens = (*self.markers, *self.opens)
        step = marker_step(at, lead, opens=opens, skips=self.skips, leaves=self.leaves)
        if not isinstance(step, Reject):
            return step
        if self.objects is not None and at.rest[lead] in "[]{,;":
            return self.objects.scan(at, tools)
        head = self.head.match(at.rest)
        if head:
            return Begin(head.end(), next(filter(None, head.groups())))
        ended = at.final or "{" in at.rest or len(at.rest) > _HEAD_LIMIT
        return Reject() if ended else None


MISTRAL = NamedJson(
    markers=("[TOOL_CALLS]",),
    head=re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\s*\w*\s*)?(?:\[ARGS\]\s*)?(?=\{)"),
    objects=JsonCalls("[TOOL_CALLS]"),
)
KIMI = NamedJson(
    markers=("<|tool_calls_section_begin|>",),
    opens=("<|tool_call_begin|>",),
    head=re.compile(r"\s*(?:functions\.)?([^\s<:]+)(?::\d+)?\s*<\|tool_call_argument_begin\|>\s*(?=\{)"),
    skips=("<|tool_call_end|>",),
    leaves=("<|tool_calls_section_end|>",),
)
DEEPSEEK = NamedJson(
    markers=("<｜tool▁calls▁begin｜>",),
    opens=("<｜tool▁call▁begin｜>",),
    head=re.compile(
        r"\s*(?:function<｜tool▁sep｜>([^\s<`]+)\s*```(?:json)?|([^\s<]+)<｜tool▁sep｜>)\s*(?=\{)"
    ),
    skips=("```", "<｜tool▁call▁end｜>"),
    leaves=("<｜tool▁calls▁end｜>",),
)
