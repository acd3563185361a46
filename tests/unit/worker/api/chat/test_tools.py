"""What tools a request may offer, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.worker.api.chat import tools
from llmlaunch.worker.api.chat.protocol import ChatBody
from llmlaunch.worker.errors import BadRequest
from llmlaunch.worker.types import FunctionSchema

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
    assert read(tools=[WEATHER]).calls_only() is None
    assert read(tools=[WEATHER], tool_choice="auto").calls_only() is None


def test_a_call_that_must_come_is_of_an_offered_function() -> None:
    both = read(tools=[WEATHER, TIME], tool_choice="required").calls_only()
    assert both is not None
    assert [function.name for function in both.functions] == ["weather", "time"]
    assert not both.single
    single = read(tools=[WEATHER, TIME], tool_choice="required", parallel_tool_calls=False).calls_only()
    assert single is not None
    assert single.single
    named = read(
        tools=[WEATHER, TIME], tool_choice={"type": "function", "function": {"name": "time"}}
    ).calls_only()
    assert named is not None
    assert named.functions == (FunctionSchema("time", None),)
    assert named.single


@pytest.mark.parametrize("nothing", [{}, {"parameters": None, "description": None, "strict": None}], ids=str)
def test_a_function_may_have_no_parameters(nothing: dict[str, Any]) -> None:
    function = {"name": "now"} | nothing
    toolset = read(tools=[{"type": "function", "function": function}], tool_choice="required")
    calls = toolset.calls_only()
    assert calls is not None
    assert calls.functions == (FunctionSchema("now", None),)
    (told,) = toolset.described()
    assert told["function"] == {"name": "now", "parameters": {"type": "object", "properties": {}}}


def test_only_the_tools_that_are_allowed_are_offered() -> None:
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "time"}}]},
    }
    toolset = read(tools=[WEATHER, TIME], tool_choice=choice)
    assert list(toolset.parameters) == ["time"]
    assert toolset.required
    assert not toolset.named


def test_functions_are_tools_of_which_one_may_be_called() -> None:
    toolset = read(functions=[WEATHER["function"], {"name": "time"}])
    assert list(toolset.parameters) == ["weather", "time"]
    assert (toolset.required, toolset.parallel, toolset.old) == (False, False, True)
    assert read(functions=[{"name": "time"}], function_call={"name": "time"}).named == "time"
    assert not read(functions=[{"name": "time"}], function_call="none").active
    assert not read(function_call="none").active


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
        (
            {"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "tools": [{"name": "x"}]}},
            "tool_choice",
        ),
        ({"tools": [WEATHER], "functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call"),
        ({"functions": [{"name": "f"}, {"name": "f"}]}, "functions"),
        ({"functions": [{}]}, "functions"),
    ],
    ids=str,
)
def test_wrong_tools_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    assert caught.value.param == param
