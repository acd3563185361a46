"""What the model is told of tools, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.worker.api.chat import tools
from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.errors import BadRequest

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME = {"type": "function", "function": {"name": "time"}}


def read(**fields: Any) -> tools.Toolset:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields
    return tools.read(ChatBody.model_validate(body))


def test_without_tools_nothing_is_asked() -> None:
    assert not read().active
    assert not read(tools=[]).active
    assert not read(tools=[WEATHER], tool_choice="none").active


def test_the_model_decides_unless_told_otherwise() -> None:
    assert read(tools=[WEATHER]).schema() is None
    assert read(tools=[WEATHER], tool_choice="auto").schema() is None


def test_a_call_that_must_come_has_a_schema() -> None:
    both = read(tools=[WEATHER, TIME], tool_choice="required").schema()
    assert both is not None
    names = [form["properties"]["name"]["const"] for form in both["items"]["anyOf"]]
    assert names == ["weather", "time"]
    assert "maxItems" not in both
    single = read(tools=[WEATHER, TIME], tool_choice="required", parallel_tool_calls=False).schema()
    assert single is not None
    assert single["maxItems"] == 1
    named = read(
        tools=[WEATHER, TIME], tool_choice={"type": "function", "function": {"name": "time"}}
    ).schema()
    assert named is not None
    assert [form["properties"]["name"]["const"] for form in named["items"]["anyOf"]] == ["time"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "perhaps"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {}}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{"type": "retrieval"}]}, "tools"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}]}, "tools"),
    ],
    ids=str,
)
def test_wrong_tools_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    assert caught.value.param == param


CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Rome?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny", "tool_call_id": "1"},
]


def test_a_template_that_knows_tools_gets_them_with_arguments_as_objects() -> None:
    messages, told = tools.for_template(HISTORY, read(tools=[WEATHER]), known=True)
    assert told == {"tools": [WEATHER]}
    assert messages[2]["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert messages[3]["role"] == "tool"
    assert HISTORY[2]["tool_calls"][0]["function"]["arguments"] == '{"city": "Rome"}'


def test_one_that_does_not_is_told_in_words() -> None:
    messages, told = tools.for_template(HISTORY, read(tools=[WEATHER]), known=False)
    assert told == {}
    assert messages[0]["content"].startswith("Be brief.\n\nYou may call functions")
    assert '"name": "weather"' in messages[0]["content"]
    assert (
        messages[2]["content"]
        == '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    )
    assert messages[3] == {"role": "user", "content": "<tool_response>\nsunny\n</tool_response>"}
    assert all(set(message) == {"role", "content"} for message in messages)
    first, _ = tools.for_template(HISTORY[1:], read(tools=[WEATHER]), known=False)
    assert first[0]["role"] == "system"


@pytest.mark.parametrize("calls", [["x"], [{}], [{"function": {"name": "f", "arguments": "{"}}]])
def test_strange_calls_in_the_history_break_nothing(calls: list[Any]) -> None:
    message = {"role": "assistant", "content": "", "tool_calls": calls}
    for known in (True, False):
        tools.for_template([message], read(tools=[WEATHER]), known=known)
