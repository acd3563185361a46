"""Bodies of Anthropic's clients become chat bodies that every engine takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.anthropic.errors import InvalidRequest
from llmlaunch.anthropic.request_translation import chat_request, shows_thinking

HELLO = {"role": "user", "content": "Hello"}
CACHED = {"cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR"}}


def translated(*messages: dict[str, Any], images: bool = False, **more: Any) -> dict[str, Any]:
    return chat_request({"model": "m", "max_tokens": 64, "messages": list(messages), **more}, images=images)


def messages(*given: dict[str, Any], images: bool = False, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = translated(*given, images=images, **more)["messages"]
    return found


def refusal(*given: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        translated(*(given or (HELLO,)), **more)
    return caught.value.param, caught.value.message


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def test_the_least_there_is() -> None:
    assert translated(HELLO) == {"model": "m", "max_tokens": 64, "messages": [HELLO]}


def test_the_system_prompt_is_one_message_without_what_defeats_the_cache() -> None:
    billing = text("x-anthropic-billing-header: cc_version=2.1; cch=8f3a1;")
    blocks = [billing, text("You are Claude Code.", **CACHED), text("Be brief.", **CACHED)]
    expected = [{"role": "system", "content": "You are Claude Code.\n\nBe brief."}, HELLO]
    assert messages(HELLO, system=blocks) == expected
    assert messages(HELLO, system="") == messages(HELLO, system=[]) == messages(HELLO, system=None) == [HELLO]


def test_turns_with_tools() -> None:
    conversation = (
        user(text("<system-reminder>…</system-reminder>"), text("What is in a.txt and b.txt?", **CACHED)),
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Two files.", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "x"},
                text("Let me look."),
                {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "a.txt"}},
                {"type": "tool_use", "id": "toolu_2", "name": "Read", "input": {"path": "b.txt"}},
            ],
        },
        user(
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("one"), text("two")]},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no such file", "is_error": True},
            text("Be quick.", **CACHED),
        ),
    )
    found = messages(*conversation)
    assert found == [
        {
            "role": "user",
            "content": "<system-reminder>…</system-reminder>\n\nWhat is in a.txt and b.txt?",
        },
        {
            "role": "assistant",
            "content": "Let me look.",
            "reasoning_content": "Two files.",
            "tool_calls": [
                {
                    "id": f"toolu_{at}",
                    "type": "function",
                    "function": {"name": "Read", "arguments": f'{{"path": "{name}.txt"}}'},
                }
                for at, name in ((1, "a"), (2, "b"))
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "one\ntwo"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: no such file"},
        {"role": "user", "content": "Be quick."},
    ]


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ({}, ""), ({"content": None}, ""), ({"content": []}, ""), ({"content": "x"}, "x"),
        ({"content": "Error: x", "is_error": True}, "Error: x"),
        ({"content": "<tool_use_error>x</tool_use_error>", "is_error": True}, "<tool_use_error>x</tool_use_error>"),
        ({"content": [{"type": "tool_reference", "tool_name": "T"}]}, "The tool T is available."),
        ({"content": [{"type": "search_result", "title": "T", "source": "S", "content": [text("x")]}]}, "T\nS\nx"),
    ],
)  # fmt: skip
def test_results_of_tools(result: dict[str, Any], content: str) -> None:
    (found,) = messages(user({"type": "tool_result", "tool_use_id": "t", **result}))
    assert found == {"role": "tool", "tool_call_id": "t", "content": content}


def test_turns_of_one_user_in_a_row_are_one() -> None:
    assert messages(HELLO, user(text("Are you there?"))) == [
        {"role": "user", "content": "Hello\n\nAre you there?"}
    ]


def test_an_answer_that_has_begun_goes_on() -> None:
    begun = translated(HELLO, {"role": "assistant", "content": "The answer is ("})
    assert (begun["continue_final_message"], begun["add_generation_prompt"]) == (True, False)
    called = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    assert "continue_final_message" not in translated(HELLO, {"role": "assistant", "content": [called]})


def test_system_messages_within_the_conversation() -> None:
    french = {"role": "system", "content": [text("Now in French.")]}
    answer = {"role": "assistant", "content": "Hi"}
    reminder = "<system-reminder>\nNow in French.\n</system-reminder>"
    assert messages(HELLO, french) == [{"role": "user", "content": f"Hello\n\n{reminder}"}]
    assert messages(HELLO, answer, french)[2] == {"role": "user", "content": reminder}
    assert messages(french, HELLO) == [{"role": "system", "content": "Now in French."}, HELLO]
    assert messages(french, HELLO, system="Be brief.")[0]["content"] == "Be brief.\n\nNow in French."


def test_images_are_refused_by_name_or_passed_on() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": [text("a picture"), IMAGE]}
    assert refusal(HELLO, user(text("Look"), IMAGE))[0] == "messages[1].content[1]"
    param, message = refusal(user(result))
    assert param == "messages[0].content[0].content[1]"
    assert "cannot read images" in message
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}}
    assert messages(user(text("Look"), IMAGE), images=True)[0]["content"] == [text("Look"), shown]
    tool, picture = messages(user(result), images=True)
    assert (tool["content"], picture) == ("a picture", {"role": "user", "content": [shown]})
    url = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    assert messages(user(url), images=True)[0]["content"][0]["image_url"] == {"url": "https://x/y.png"}


def test_documents() -> None:
    plain = {
        "type": "document",
        "title": "T",
        "source": {"type": "text", "media_type": "text/plain", "data": "x"},
    }
    nested = {"type": "document", "source": {"type": "content", "content": [text("y")]}}
    assert messages(user(plain, nested))[0]["content"] == "T\n\nx\n\ny"
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}}
    param, message = refusal(user(pdf))
    assert param == "messages[0].content[0]"
    assert "PDF" in message


def test_what_ran_at_anthropic_is_left_out() -> None:
    searched = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        text("Found it."),
    ]
    found = translated(
        HELLO,
        {"role": "assistant", "content": searched},
        HELLO,
        tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}],
        tool_choice={"type": "auto"},
    )
    assert found["messages"][1] == {"role": "assistant", "content": "Found it."}
    assert not {"tools", "tool_choice"} & found.keys()


SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
TOOLS = [
    {"name": "Read", "description": "Reads.", "input_schema": SCHEMA, **CACHED},
    {"type": "custom", "name": "Quit", "input_schema": {"type": "object"}, "strict": True},
    {"type": "bash_20250124", "name": "bash"},
]


def test_tools() -> None:
    found = translated(HELLO, tools=TOOLS)
    assert found["tools"] == [
        {"type": "function", "function": {"name": "Read", "parameters": SCHEMA, "description": "Reads."}},
        {"type": "function", "function": {"name": "Quit", "parameters": {"type": "object"}, "strict": True}},
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, "auto"), ({"type": "auto"}, "auto"), ({"type": "any"}, "required"), ({"type": "none"}, "none"),
        ({"type": "tool", "name": "Read"}, {"type": "function", "function": {"name": "Read"}}), ("any", "required"),
    ],
)  # fmt: skip
def test_tool_choices(choice: Any, expected: Any) -> None:
    found = translated(HELLO, tools=TOOLS, tool_choice=choice)
    assert found["tool_choice"] == expected
    assert "parallel_tool_calls" not in found


def test_one_tool_at_a_time() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert translated(HELLO, tools=TOOLS, tool_choice=choice)["parallel_tool_calls"] is False


def test_the_other_fields() -> None:
    found = translated(
        HELLO, stream=True, temperature=0.5, top_p=0.9, top_k=20, stop_sequences=["END", ""],
        metadata={"user_id": "user_1"}, service_tier="auto", context_management={"edits": []}, container=None,
    )  # fmt: skip
    assert found == {
        "model": "m", "messages": [HELLO], "max_tokens": 64, "stream": True, "stream_options": {"include_usage": True},
        "temperature": 0.5, "top_p": 0.9, "top_k": 20, "stop": ["END"], "user": "user_1",
    }  # fmt: skip


def test_numbers_of_tokens() -> None:
    assert translated(HELLO, max_tokens=4.0)["max_tokens"] == 4
    assert translated(HELLO, max_tokens=0)["max_tokens"] == 1
    assert "max_tokens" not in translated(HELLO, max_tokens=None)
    for wrong in (-1, 1.5, True, "8", float("inf")):
        assert refusal(max_tokens=wrong)[0] == "max_tokens"


@pytest.mark.parametrize(
    ("thinking", "kwargs", "shown"),
    [
        (None, None, True),
        ({"type": "enabled", "budget_tokens": 1024}, True, True),
        ({"type": "adaptive"}, True, True),
        ({"type": "adaptive", "display": "omitted"}, True, False),
        ({"type": "disabled"}, False, False),
    ],
)
def test_thinking(thinking: Any, kwargs: bool | None, shown: bool) -> None:
    found = translated(HELLO, thinking=thinking)
    expected = None if kwargs is None else {"enable_thinking": kwargs, "thinking": kwargs}
    assert found.get("chat_template_kwargs") == expected
    assert ("include_reasoning" in found) == (kwargs is False)
    assert shows_thinking({"thinking": thinking}) == shown


def test_the_form_and_the_effort_of_the_answer() -> None:
    form = {"type": "json_schema", "schema": SCHEMA}
    found = translated(HELLO, output_config={"effort": "max", "format": form})
    expected = {
        "type": "json_schema",
        "json_schema": {"name": "output", "schema": SCHEMA, "strict": True},
    }
    assert (found["reasoning_effort"], found["response_format"]) == ("high", expected)
    assert translated(HELLO, output_format=form)["response_format"] == expected


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": None}, "messages"), ({"messages": []}, "messages"), ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [user({"kind": "text"})]}, "messages[0].content[0]"),
        ({"messages": [user({"type": "text"})]}, "messages[0].content[0].text"),
        ({"messages": [user({"type": "video"})]}, "messages[0].content[0].type"),
        ({"messages": [user({"type": "tool_result"})]}, "messages[0].content[0].tool_use_id"),
        ({"messages": [user({"type": "document"})]}, "messages[0].content[0].source"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "t"}]}]}, "messages[0].content[0].name"),
        ({"system": [IMAGE]}, "system[0].type"), ({"system": 5}, "system"),
        ({"tools": {}, "tool_choice": 3}, "tool_choice"), ({"tools": "x"}, "tools"), ({"tools": ["x"]}, "tools[0]"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "f", "input_schema": "x"}]}, "tools[0].input_schema"),
        ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "bash"}}, "tool_choice.name"),
        ({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "nope"}}, "tool_choice.name"),
        ({"tools": TOOLS, "tool_choice": {"type": ["any"]}}, "tool_choice.type"),
        ({"stop_sequences": "END"}, "stop_sequences"), ({"thinking": {"type": "maybe"}}, "thinking.type"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
    ],
)  # fmt: skip
def test_refusals_name_the_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat_request({"model": "m", "max_tokens": 1, "messages": [HELLO], **body}, images=False)
    assert caught.value.param == param


RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "claude_code.json").read_text())
"""Two turns of Claude Code 2.1.197, recorded with ``claude -p "Run echo"`` against a scripted server; its prompts and the
descriptions of its tools are shortened."""


def test_the_first_turn_of_claude_code() -> None:
    found = chat_request(RECORDED["first"]["body"], images=False)
    system, said = found["messages"]
    assert system["role"] == "system"
    assert system["content"].startswith("You are an agent that works in a terminal.\n\n")
    assert said["role"] == "user"
    assert "Run echo\n\n<system-reminder>\nThese kinds of agents" in said["content"]
    assert [tool["function"]["name"] for tool in found["tools"]] == [
        "Bash", "Edit", "Read", "TaskCreate", "WebSearch",
    ]  # fmt: skip
    rest = {key: value for key, value in found.items() if key not in ("messages", "tools", "user")}
    assert rest == {
        "model": "local", "max_tokens": 32000, "stream": True, "stream_options": {"include_usage": True},
        "tool_choice": "auto", "reasoning_effort": "high",
        "chat_template_kwargs": {"enable_thinking": True, "thinking": True},
    }  # fmt: skip


def test_the_second_turn_of_claude_code_goes_on_where_the_first_ended() -> None:
    first = chat_request(RECORDED["first"]["body"], images=False)["messages"]
    second = chat_request(RECORDED["second"]["body"], images=False)["messages"]
    assert second[:2] == first, "the KV cache of the first turn is of use to the second"
    called, result = second[2:]
    assert (called["content"], called["reasoning_content"]) == ("Looking.", "I list.")
    (call,) = called["tool_calls"]
    assert json.loads(call["function"]["arguments"])["command"] == "echo marker-$((40+2))"
    assert result == {"role": "tool", "tool_call_id": call["id"], "content": "marker-42"}
