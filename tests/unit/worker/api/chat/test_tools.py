"""What tools a request may offer, and what is refused."""

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
