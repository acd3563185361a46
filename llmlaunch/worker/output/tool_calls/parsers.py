"""Which parser reads the tool calls of an answer, and where calls may begin. Pure."""

from __future__ import annotations

from llmlaunch.worker.output.tool_calls import json_format
from llmlaunch.worker.output.tool_calls.types import ToolCallParser

MARKERS = json_format.MARKERS
"""Texts that begin a call. A model may have them as special tokens: these must then be decoded."""


def tool_call_parser(*, marked: bool = True) -> ToolCallParser:
    """Return a new parser for one answer.

    ``marked`` False: structured output has made sure that the whole answer consists of calls, so there is no marker.
    """
    return json_format.JsonToolCallParser(marked=marked)
