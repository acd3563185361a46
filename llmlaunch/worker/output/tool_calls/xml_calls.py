"""Calls as tags, with one tag a parameter.

::

    Qwen3-Coder     <tool_call><function=f><parameter=a>1</parameter></function></tool_call>
    GLM 4.5+        <tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>
    MiniMax M2      <minimax:tool_call><invoke name="f"><parameter name="a">1</parameter></invoke></minimax:tool_call>
    DeepSeek V3.2   <｜DSML｜function_calls><｜DSML｜invoke name="f"><｜DSML｜parameter name="a" string="false">1</…

Values are not JSON: the declared schema says which type they have. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmlaunch.worker.output.tool_calls import python_calls, values
from llmlaunch.worker.output.tool_calls.cursor import Cursor
from llmlaunch.worker.output.tool_calls.json_calls import JsonCalls, parsed
from llmlaunch.worker.output.tool_calls.markers import marker_step
from llmlaunch.worker.output.tool_calls.types import Begin, Calls, Reject, Skip, Step, Tools, written

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_FUNCTION_HEAD = re.compile(r"""\s*(?:<function=)?\s*["']?([^\s<>"']+)["']?\s*>\s*""")
_FUNCTION_BEGUN = re.compile(r"""\s*(?:<function=)?\s*["']?[^\s<>"']*["']?\s*""")
_PARAMETER = re.compile(
    r"""<parameter=\s*["']?([^>"']+?)["']?\s*>(.*?)(?:</parameter>|(?=<parameter=)|(?=</function>)|$)""",
    re.DOTALL,
)
_GLM_HEAD = re.compile(r"\s*([\w./:-]+)\s*(?=<arg_key>|</tool_call>)")
_GLM_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_NAME = re.compile(r"\s*([A-Za-z_][\w.]*)")
_NAME_LIMIT = 256


def _function(at: Cursor, tools: Tools, *, declared_only: bool) -> Step | None:
    """``<function=f>`` with parameters as tags, or with a JSON object (Llama 3.1)."""
    head = _FUNCTION_HEAD.match(at.rest)
    if head is None:
        begun = _FUNCTION_BEGUN.fullmatch(at.rest) is not None and len(at.rest) < _NAME_LIMIT
        return None if begun and not at.final else Reject()
    if declared_only and head[1] not in tools:
        return Reject()
    if head.end() == len(at.rest):
        return None
    if at.rest[head.end()] == "{":
        return Begin(head.end(), head[1])
    end = at.find(_FUNCTION_END)
    if end < 0:
        return None
    return Calls(
        end + len(_FUNCTION_END), ((head[1], _arguments(at.rest[head.end() : end], head[1], tools)),)
    )


def _arguments(body: str, function: str, tools: Tools) -> str:
    """JSON text of the parameters in ``body``."""
    found = {
        name: values.of_schema(_trimmed(value), name, tools.get(function))
        for name, value in _PARAMETER.findall(body)
    }
    return written(found)


def _trimmed(value: str) -> str:
    """Without the newlines next to the tags, which templates write there."""
    return value.removeprefix("\n").removesuffix("\n")


@dataclass(frozen=True, slots=True)
class TaggedCalls:
    """What stands between ``<tool_call>`` tags: JSON, Qwen3-Coder's tags, GLM's tags or Python, whichever it is."""

    markers: tuple[str, ...] = (OPEN,)

    def scan(self, at: Cursor, tools: Tools) -> Step | None:
        lead = at.blank()
        if lead == len(at.rest):
            return None
        if at.starts(_FUNCTION, lead):
            return _function(at, tools, declared_only=False)
        if at.starts(_FUNCTION_END, lead):
            return Skip(lead + len(_FUNCTION_END))
        if at.may_start(_FUNCTION, lead) or at.may_start(_FUNCTION_END, lead):
            return None
        step = JsonCalls(OPEN, CLOSE).scan(at, tools)
        return self._named(at, lead, tools) if isinstance(step, Reject) else step

    @staticmethod
    def _named(at: Cursor, lead: int, tools: Tools) -> Step | None:
        """GLM's or Python's way: both begin with the name."""
        head = _GLM_HEAD.match(at.rest)
        if head:
            end = at.find(CLOSE)
            if end < 0:
                return None
            found = {
                key.strip(): values.of_schema(value, key.strip(), tools.get(head[1]))
                for key, value in _GLM_ARGUMENT.findall(at.rest[:end])
            }
            return Calls(end, ((head[1], written(found)),)) if found or head[1] in tools else Reject()
        name = _NAME.match(at.rest)
        if name and name.end() < len(at.rest) and at.rest[name.end()] == "(":
            return python_calls.scan_calls(at, lead, tools)
        begun = re.fullmatch(r"\s*[\w./:-]+\s*(?:<[\w/]*)?", at.rest)
        return None if begun and not at.final and len(at.rest) < _NAME_LIMIT else Reject()


@dataclass(frozen=True, slots=True)
class FunctionTags:
    """``<function=f>`` without anything around it: Qwen3-Coder forgets the outer tag, Llama 3.1 has none."""

    markers: tuple[str, ...] = (_FUNCTION,)

    def scan(self, at: Cursor, tools: Tools) -> Step | None:
        lead = at.blank()
        if lead == len(at.rest):
            return None
        step = marker_step(at, lead, skips=(_FUNCTION_END,), leaves=(CLOSE,))
        if not isinstance(step, Reject):
            return step
        if at.may_start(_FUNCTION, lead) and not at.starts(_FUNCTION, lead):
            return None
        # Without the mark itself at the beginning of a section.
        return _function(at, tools, declared_only=True)


@dataclass(frozen=True, slots=True)
class InvokeTags:
    """``<invoke name="f">`` with ``<parameter name="a">``. ``prefix``: of the inner tags' names."""

    open: str
    close: str
    prefix: str = ""

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.open,)

    def scan(self, at: Cursor, tools: Tools) -> Step | None:
        lead = at.blank()
        if lead == len(at.rest):
            return None
        begin, end_tag = f"<{self.prefix}invoke", f"</{self.prefix}invoke>"
        step = marker_step(at, lead, opens=self.markers, leaves=(self.close,))
        if not isinstance(step, Reject):
            return step
        if not at.starts(begin, lead):
            return None if at.may_start(begin, lead) else Reject()
        end = at.find(end_tag)
        if end < 0:
            return None
        block = at.rest[lead:end]
        head = re.match(rf"""{re.escape(begin)}\s+name=["']?([^"'>]+)["']?\s*>""", block)
        if head is None:
            return Reject()
        name = head[1].strip()
        return Calls(end + len(end_tag), ((name, written(self._arguments(block, name, tools))),))

    def _arguments(self, block: str, function: str, tools: Tools) -> dict[str, object]:
        tag = re.escape(self.prefix)
        pattern = rf"""<{tag}parameter\s+name=["']?([^"'>]+)["']?(?:\s+string=["']?(true|false)["']?)?\s*>(.*?)</{tag}parameter>"""
        found: dict[str, object] = {}
        for name, string, text in re.findall(pattern, block, re.DOTALL):
            value = _trimmed(text)
            if string == "true":
                found[name] = value
            elif string == "false":
                read = parsed(value)
                found[name] = value if read is None and value.strip() != "null" else read
            else:
                found[name] = values.of_schema(value, name, tools.get(function))
        return found


MINIMAX_M2 = InvokeTags("<minimax:tool_call>", "</minimax:tool_call>")
DEEPSEEK_V32 = InvokeTags("<｜DSML｜function_calls>", "</｜DSML｜function_calls>", "｜DSML｜")
