"""Calls, results, and tools in words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmlaunch.worker.chat_template import calls
from tests.unit.worker.chat_template.samples import (
    WEATHER,
    assistant,
    call,
    developer,
    result,
    system,
    user,
)


def test_arguments_are_objects_and_results_name_their_function() -> None:
    given = [user("x"), assistant("", call("weather")), result("sunny")]
    _, calling, answer = calls.completed(given)
    assert calling["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert answer == result("sunny") | {"name": "weather"}
    assert given[1]["tool_calls"][0]["function"]["arguments"] == '{"city": "Rome"}'


@pytest.mark.parametrize(
    ("arguments", "read"),
    [("", {}), (None, {}), ("{", "{"), ("[1]", [1]), ({"a": 1}, {"a": 1}), ("[" * 100_000, "[" * 100_000)],
    ids=["empty", "null", "cut", "list", "object", "deep"],
)
def test_strange_arguments_break_nothing(arguments: Any, read: Any) -> None:
    (message,) = calls.completed([assistant("", call("f", arguments=arguments))])
    assert message["tool_calls"][0]["function"]["arguments"] == read


def test_the_old_fields_become_those_of_today() -> None:
    calling = assistant("") | {"function_call": {"name": "weather", "arguments": "{}"}}
    given = [user("x"), calling, {"role": "function", "name": "weather", "content": "sunny"}]
    _, called, answer = calls.completed(given)
    assert "function_call" not in called
    assert called["tool_calls"][0]["function"] == {"name": "weather", "arguments": {}}
    assert answer["role"] == "tool"
    assert answer["tool_call_id"] == called["tool_calls"][0]["id"]


def test_results_without_an_id_belong_to_the_calls_in_turn() -> None:
    calling = assistant("", call("f", id="1"), call("g", id="2"), call("f", id="3"))
    anonymous: list[dict[str, Any]] = [{"role": "tool", "content": text} for text in "abc"]
    found = calls.completed([calling, *anonymous])
    assert [message["tool_call_id"] for message in found[1:]] == ["1", "2", "3"]
    assert [message["name"] for message in found[1:]] == ["f", "g", "f"]


def test_an_empty_list_of_calls_is_left_out() -> None:
    # Templates ask whether there is a field of this name, not what is in it.
    assert calls.completed([assistant("a") | {"tool_calls": []}]) == [assistant("a")]


def test_a_result_without_any_call_has_an_id_all_the_same() -> None:
    (message,) = calls.completed([{"role": "tool", "content": "x"}])
    assert calls.SHORT_ID.fullmatch(message["tool_call_id"])


def test_short_ids_are_the_same_on_call_and_result() -> None:
    given = calls.completed(
        [
            assistant("", call("f", id="call-5f3a7a56d843c914dc2f9f10"), call("f", id="abcDEF123")),
            result("x", id="call-5f3a7a56d843c914dc2f9f10"),
            result("y", id="abcDEF123"),
        ]
    )
    calling, first, second = calls.with_short_ids(given)
    ids = [each["id"] for each in calling["tool_calls"]]
    assert ids == [first["tool_call_id"], second["tool_call_id"]]
    assert calls.SHORT_ID.fullmatch(ids[0])
    assert ids[1] == "abcDEF123"


def test_several_calls_become_turns_each_with_its_result() -> None:
    one, two, three = (call("f", id=str(at)) for at in (1, 2, 3))
    given = [
        user("x"),
        assistant("both", one, two, three),
        result("b", id="2"),
        result("a", id="1"),
        user("y"),
    ]
    assert calls.single(given) == [
        user("x"),
        assistant("both", one),
        result("a", id="1"),
        assistant("", two),
        result("b", id="2"),
        assistant("", three),
        user("y"),
    ]
    stray = [assistant("", one, two), result("z", id="9")]
    assert calls.single(stray)[-1] == result("z", id="9")


def test_calls_and_results_as_text() -> None:
    given = calls.completed([assistant("So:", call("weather")), result("sunny")])
    assert calls.as_text(given) == [
        assistant('So:\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'),
        user("<tool_response>\nsunny\n</tool_response>"),
    ]


def test_only_results_that_follow_no_call_become_text() -> None:
    one, two = call("f", id="1"), call("f", id="2")
    calling = assistant("", one, two)
    given = [
        result("a", id="0"),
        calling,
        result("z", id="9"),
        result("c", id="2"),
        user("x"),
        result("b", id="1"),
    ]
    assert calls.strays_as_text(given) == [
        user("<tool_response>\na\n</tool_response>"),
        calling,
        result("c", id="2"),
        user("<tool_response>\nz\n</tool_response>"),
        user("x"),
        user("<tool_response>\nb\n</tool_response>"),
    ]


def test_arguments_as_strings() -> None:
    (message,) = calls.with_argument_strings(calls.completed([assistant("", call("f"))]))
    assert message["tool_calls"][0]["function"]["arguments"] == '{"city": "Rome"}'


@pytest.mark.parametrize("first", [system, developer])
def test_tools_are_explained_in_the_system_message(first: Any) -> None:
    found = calls.explained([first("Be brief."), user("x")], [WEATHER])
    assert found[0]["content"].startswith("Be brief.\n\nYou may call functions")
    assert '"name": "weather"' in found[0]["content"]
    made = calls.explained([user("x")], [WEATHER])
    assert made[0]["role"] == "system"
    assert made[1:] == [user("x")]


def test_ids_that_name_the_function() -> None:
    given = [
        assistant("", call("f", id="a"), call("g", id="b")),
        result("x", id="b"),
        result("y", id="a"),
        assistant("", call("f", id="c")),
        result("z", id="unknown"),
    ]
    calling, second, first, later, stray = calls.with_named_ids(given)
    assert [each["id"] for each in calling["tool_calls"]] == ["functions.f:0", "functions.g:1"]
    assert (first["tool_call_id"], second["tool_call_id"]) == ("functions.f:0", "functions.g:1")
    assert later["tool_calls"][0]["id"] == "functions.f:2"
    assert stray["tool_call_id"] == "unknown"


def test_tools_in_the_system_message() -> None:
    (first, _) = calls.in_system([user("x")], [WEATHER])
    assert json.loads(first["tools"]) == [WEATHER["function"]]
    (only,) = calls.in_system([system("a")], [WEATHER])
    assert only["content"] == "a"
    assert only["tools"] == first["tools"]


def test_tools_have_what_templates_read() -> None:
    bare = {"type": "function", "function": {"name": "f"}}
    empty = {"type": "object", "properties": {}}
    assert calls.completed_tools([bare, WEATHER], described=False) == [
        {"type": "function", "function": {"name": "f", "parameters": empty}},
        WEATHER,
    ]
    (made,) = calls.completed_tools([bare], described=True)
    assert made["function"]["description"] == ""
