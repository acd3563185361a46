"""Calls of tools are found in whatever way a family of models writes them, however the text is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.worker.output.tool_calls.json_format import JsonToolCallParser
from llmlaunch.worker.output.tool_calls.types import ToolCallDelta

CALL = '{"name": "weather", "arguments": {"city": "Pa\\"ris}", "days": [1, {"x": "]"}]}}'
BARE = CALL.partition('"arguments": ')[2][:-1]
ARGUMENTS = {"city": 'Pa"ris}', "days": [1, {"x": "]"}]}
TWO = [("weather", ARGUMENTS), ("weather", ARGUMENTS)]

WRITTEN: list[tuple[str, str, list[tuple[str, Any]]]] = [
    ("<tool_call>\n" + CALL + "\n</tool_call>", "", TWO[:1]),
    ("Let me see. <tool_call>" + CALL + "</tool_call>\n<tool_call>" + CALL + "</tool_call>", "Let me see. ", TWO),
    ("[TOOL_CALLS] [" + CALL + ", " + CALL + "]", "", TWO),
    ("[TOOL_CALLS]weather[ARGS]" + BARE, "", TWO[:1]),
    ("So: [TOOL_CALLS]weather[ARGS]" + BARE + "[TOOL_CALLS]weather[ARGS]" + BARE, "So: ", TWO),
    ("[TOOL_CALLS]weather[CALL_ID]a1B2c3D4e[ARGS]" + BARE + "[TOOL_CALLS] weather" + BARE, "", TWO),
    ('[TOOL_CALLS]my.tool-2[ARGS]{}', "", [("my.tool-2", {})]),
    ('[TOOL_CALLS]f[ARGS]{"a": 1', "", [("f", None)]),
    ("[TOOL_CALLS]f[ARGS]", "", []),
    (CALL.replace("arguments", "parameters"), "", TWO[:1]),
    ("<|python_tag|>" + CALL + "; " + CALL, "", TWO),
    ("  \n" + CALL, "", TWO[:1]),
    ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', "", [("f", {"a": 1})]),
    ('<tool_call>{"name": "f"}</tool_call>', "", [("f", {})]),
    ('<tool_call>{"name": "f", "arguments": {}}</tool_call>', "", [("f", {})]),
    ('<tool_call>{"name": "f", "arguments": {"a": 1', "", [("f", None)]),
    ("A plain answer with {braces} and <tags>.", "A plain answer with {braces} and <tags>.", []),
    ('{"answer": 42}', '{"answer": 42}', []),
    ("", "", []),
    ("<tool_call>nonsense</tool_call>", "", []),
    ("a < b", "a < b", []),
]  # fmt: skip


def read(deltas: list[ToolCallDelta]) -> tuple[str, list[tuple[str, str]]]:
    text = ""
    calls: list[tuple[str, str]] = []
    for delta in deltas:
        text += delta.text
        if delta.name:
            assert delta.index == len(calls)
            calls.append((delta.name, ""))
        if delta.arguments:
            assert delta.index == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + delta.arguments)
    return text, calls


def check(written: str, text: str, calls: list[tuple[str, Any]], sizes: list[int]) -> None:
    parser = JsonToolCallParser()
    deltas: list[ToolCallDelta] = []
    rest = written
    for size in sizes:
        deltas += parser.push(rest[:size])
        rest = rest[size:]
    deltas += parser.push(rest) + parser.flush()
    found_text, found = read(deltas)
    assert found_text == text
    assert [name for name, _ in found] == [name for name, _ in calls]
    for (_, arguments), (_, expected) in zip(found, calls, strict=True):
        if expected is None:
            assert arguments == '{"a": 1'
        else:
            assert json.loads(arguments) == expected


@pytest.mark.parametrize(("written", "text", "calls"), WRITTEN, ids=lambda value: str(value)[:30])
def test_letter_by_letter_and_whole(written: str, text: str, calls: list[tuple[str, Any]]) -> None:
    check(written, text, calls, [])
    check(written, text, calls, [1] * len(written))


@given(st.sampled_from(WRITTEN), st.lists(st.integers(1, 12), max_size=40))
def test_however_it_is_cut(case: tuple[str, str, list[tuple[str, Any]]], sizes: list[int]) -> None:
    check(*case, sizes)


def test_arguments_come_as_they_are_written() -> None:
    parser = JsonToolCallParser()
    first = parser.push('<tool_call>{"name": "f", "arguments": {"text": "once ')
    assert first == [ToolCallDelta(index=0, name="f"), ToolCallDelta(index=0, arguments='{"text": "once ')]
    assert parser.push("upon") == [ToolCallDelta(index=0, arguments="upon")]
    assert parser.push('"}}</tool_call>') == [ToolCallDelta(index=0, arguments='"}')]


def test_an_imposed_form_needs_no_mark() -> None:
    parser = JsonToolCallParser(marked=False)
    text, calls = read(parser.push("[" + CALL + "," + CALL + "]") + parser.flush())
    assert text == ""
    assert [json.loads(arguments) for _, arguments in calls] == [ARGUMENTS] * 2


PIECES = (
    "<tool_call>", "</tool_call>", "\n", "{", "}", "[", "]", ",", ":", '"', "\\", "\\x", "\\u12", "5", "null", "hello", "<tool",
    '{"name": "a\\x", "arguments": ', '{"name": "f", "arguments": ', '{"arguments": {}, "name": "g"}', '{"a": 1}',
)  # fmt: skip


@given(
    st.lists(st.sampled_from(PIECES), max_size=14), st.lists(st.integers(1, 9), max_size=30), st.booleans()
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_model_writes_is_read_alike_however_it_is_cut(
    pieces: list[str], sizes: list[int], marked: bool
) -> None:
    written = "".join(pieces)
    parser = JsonToolCallParser(marked=marked)
    whole = read(parser.push(written) + parser.flush())
    parser = JsonToolCallParser(marked=marked)
    deltas: list[ToolCallDelta] = []
    rest = written
    for size in sizes:
        deltas += parser.push(rest[:size])
        rest = rest[size:]
    assert read(deltas + parser.push(rest) + parser.flush()) == whole


def test_a_name_that_is_no_json_is_told_as_it_is_written() -> None:
    parser = JsonToolCallParser()
    written = '<tool_call>{"name": "a\\x", "arguments": {}}</tool_call>'
    assert read(parser.push(written) + parser.flush()) == ("", [("a\\x", "{}")])
