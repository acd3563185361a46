"""Transcripts of many models are read alike wherever they are cut, and no text is lost."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.common.tool_parsers import AUTO, HARMONY, NONE, TOOL_PARSERS
from llmlaunch.worker.output.tool_calls import formats
from llmlaunch.worker.output.tool_calls.formats import ModelOutput, of_template
from llmlaunch.worker.output.tool_calls.types import ToolCallDelta
from tests.unit.worker.output.tool_calls.transcripts import TOOLS, TRANSCRIPTS, Transcript


def collect(deltas: Sequence[ToolCallDelta]) -> tuple[str, str, list[tuple[str, str]]]:
    """Text, reasoning and calls of ``deltas``; checks that a client can put them together."""
    calls: list[tuple[str, str]] = []
    for delta in deltas:
        if delta.name:
            assert delta.index == len(calls)
            calls.append((delta.name, delta.arguments))
        elif delta.index >= 0:
            assert delta.index == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + delta.arguments)
    return "".join(d.text for d in deltas), "".join(d.reasoning for d in deltas), calls


def read(
    output: ModelOutput, pieces: Sequence[str], *, imposed: bool = False, parallel: bool = True
) -> tuple[str, str, list[tuple[str, str]]]:
    parser = output.calls(TOOLS, parallel=parallel, imposed=imposed)
    assert parser is not None
    deltas: list[ToolCallDelta] = []
    for piece in pieces:
        found = parser.push(piece)
        indices = [delta.index for delta in found]
        assert len(indices) == len(set(indices)) or -1 in indices
        assert all(indices.count(index) == 1 for index in indices if index >= 0)
        deltas += found
    return collect(deltas + parser.flush())


def check(transcript: Transcript, output: ModelOutput, pieces: Sequence[str]) -> None:
    text, thought, calls = read(output, pieces)
    assert text == transcript.text
    assert thought == transcript.thought
    assert [name for name, _ in calls] == [name for name, _ in transcript.calls]
    for (_, arguments), (_, expected) in zip(calls, transcript.calls, strict=True):
        assert arguments == expected if isinstance(expected, str) else json.loads(arguments) == expected


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: f"{t.parser}-{t.written[:24]!r}")
def test_a_transcript_cut_anywhere(transcript: Transcript) -> None:
    output = of_template("", transcript.parser)
    written = transcript.written
    check(transcript, output, [written])
    check(transcript, output, list(written))
    for cut in range(1, len(written)):
        check(transcript, output, [written[:cut], written[cut:]])


@given(st.sampled_from(TRANSCRIPTS), st.lists(st.integers(1, 12), max_size=60))
def test_a_transcript_in_pieces_of_any_size(transcript: Transcript, sizes: list[int]) -> None:
    pieces, rest = [], transcript.written
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    check(transcript, of_template("", transcript.parser), [*pieces, rest])


@pytest.mark.parametrize(
    "transcript",
    [t for t in TRANSCRIPTS if t.parser != HARMONY and t.calls],
    ids=lambda t: f"{t.parser}-{t.written[:24]!r}",
)
def test_a_template_without_a_format_of_its_own_allows_all_of_them(transcript: Transcript) -> None:
    check(transcript, of_template("{{ messages }}"), list(transcript.written))


SIGNS = {
    "qwen3_coder": "<tool_call>\n<function=",
    "glm45": "<arg_key>",
    "mistral": "[TOOL_CALLS]",
    "llama3_json": "<|python_tag|>",
    "pythonic": "<|python_start|>",
    "gemma": "<|tool_call>call:",
    "granite": "<|tool_call|>",
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>",
    "deepseek_v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
    "deepseek_v32": "<｜DSML｜function_calls>",
    "minimax": "<tool_calls>",
    "minimax_m2": "<minimax:tool_call>",
    "openai": "<|start|>assistant<|channel|>final<|message|>",
}


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: f"{t.parser}-{t.written[:24]!r}")
def test_the_template_chooses_the_format(transcript: Transcript) -> None:
    if transcript.calls and transcript.parser in SIGNS:
        check(transcript, of_template(SIGNS[transcript.parser]), [transcript.written])


def test_every_name_has_a_parser() -> None:
    assert set(TOOL_PARSERS) == {AUTO, NONE, HARMONY, *formats.PARSERS}


def test_none_leaves_calls_in_the_text() -> None:
    assert of_template("<|python_tag|>", "none").calls(TOOLS, parallel=True, imposed=False) is None


def test_without_tools_nothing_is_looked_for_except_channels() -> None:
    assert of_template("").calls({}, parallel=True, imposed=False) is None
    assert of_template("", "openai").calls({}, parallel=True, imposed=False) is not None


ONE, TWO = (
    '{"name": "get_weather", "arguments": {"city": "Paris"}}',
    '{"name": "list_files", "arguments": {}}',
)


@pytest.mark.parametrize("sizes", [1, 1000])
@pytest.mark.parametrize("parser", ["hermes", "openai"])
def test_an_imposed_list_is_calls_whatever_the_format(parser: str, sizes: int) -> None:
    written = f"[{ONE}, {TWO}]"
    pieces = [written[at : at + sizes] for at in range(0, len(written), sizes)]
    text, _, calls = read(of_template("", parser), pieces, imposed=True)
    assert (text, calls) == ("", [("get_weather", '{"city": "Paris"}'), ("list_files", "{}")])


@pytest.mark.parametrize(
    "written",
    [
        f"<tool_call>{ONE}</tool_call><tool_call>{TWO}</tool_call>",
        f"[TOOL_CALLS] [{ONE}, {TWO}]",
        "[get_weather(city='Paris'), list_files()]",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n"
        "<function=list_files>\n</function>\n</tool_call>",
    ],
)
def test_without_parallel_calls_only_the_first_counts(written: str) -> None:
    text, _, calls = read(of_template(""), list(written), parallel=False)
    assert (text, [name for name, _ in calls]) == ("", ["get_weather"])


def test_arguments_come_as_they_are_written() -> None:
    parser = of_template("").calls(TOOLS, parallel=True, imposed=False)
    assert parser is not None
    assert parser.push('<tool_call>{"name": "f", "arguments": {"text": "once ') == [
        ToolCallDelta(index=0, name="f", arguments='{"text": "once ')
    ]
    assert parser.push("upon") == [ToolCallDelta(index=0, arguments="upon")]
    assert parser.push('"}}</tool_call>') == [ToolCallDelta(index=0, arguments='"}')]


def test_an_ordinary_json_answer_is_not_held_back() -> None:
    parser = of_template("").calls(TOOLS, parallel=True, imposed=False)
    assert parser is not None
    assert parser.push('{"answer": ') == [ToolCallDelta(text='{"answer": ')]


PIECES = (
    "<tool_call>", "</tool_call>",
    "\n", " ", "{", "}", "[", "]", ",", ":", '"', "'", "\\", "\\x", "\\u12", "5", "null", "hello", "<tool",
    '{"name": "a\\x", "arguments": ', '{"name": "list_files", "arguments": ', '{"arguments": {}, "name": "g"}', '{"a": 1}', "list_files",
    "(", ")", "list_files()", "<function=", "list_files>", "<parameter=a>", "</parameter>", "</function>", "<arg_key>", "</arg_key>",
    "<arg_value>", "</arg_value>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "```tool_code", "```", "call:f{",
    "<|tool_call>", "<tool_call|>", '<|"|>', "<|tool_calls_section_begin|>", "<|tool_call_begin|>", "functions.f:0",
    "<|tool_call_argument_begin|>", "<|channel|>", "<|message|>", "<|start|>", "<|end|>", "analysis",
    "final", "to=functions.f", '<invoke name="f">', "</invoke>",
    "<minimax:tool_call>", "</minimax:tool_call>",
)  # fmt: skip


@given(
    st.lists(st.sampled_from(PIECES), max_size=14),
    st.lists(st.integers(1, 9), max_size=30),
    st.sampled_from((*TOOL_PARSERS[2:], "auto")),
    st.booleans(),
)
@settings(max_examples=600, deadline=None)
def test_whatever_a_model_writes_is_read_alike_however_it_is_cut(
    pieces: list[str], sizes: list[int], parser: str, imposed: bool
) -> None:
    written = "".join(pieces)
    output = of_template("", parser)
    cut, rest = [], written
    for size in sizes:
        cut.append(rest[:size])
        rest = rest[size:]
    assert read(output, [*cut, rest], imposed=imposed) == read(output, [written], imposed=imposed)
