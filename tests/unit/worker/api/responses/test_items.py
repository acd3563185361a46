"""Items as chat messages: what agents send is taken as far as a text model can read it."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.worker.api.responses.items import as_items, further_tools, messages
from llmlaunch.worker.api.responses.tools import OfferedTools, offered_tools
from llmlaunch.worker.errors import BadRequest

NONE = OfferedTools()
USER = {"role": "user", "content": "hi"}


def one(item: dict[str, Any], offered: OfferedTools = NONE) -> Any:
    (found,) = messages([item], offered)
    return found


def call(identity: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    "content",
    [
        "hi", ["hi"], ["h", "i"], {"type": "input_text", "text": "hi"}, [{"type": "input_text", "text": "hi"}],
        [{"type": "text", "text": "h"}, {"type": "output_text", "text": "i", "annotations": [], "logprobs": None}],
        [{"type": "refusal", "refusal": "hi"}],
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize(
    "kind", [{}, {"type": "message"}, {"type": None, "id": None, "status": None}], ids=str
)
def test_messages(content: Any, kind: dict[str, Any]) -> None:
    for role in ("user", "assistant", "system", "developer"):
        assert one(kind | {"role": role, "content": content}) == {"role": role, "content": "hi"}


def test_an_answer_may_have_no_content() -> None:
    assert one({"role": "assistant", "content": None}) == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    "item",
    [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "file_search_call", "id": "fs_1", "queries": ["x"], "status": "completed"},
        {"type": "computer_call", "id": "c", "call_id": "c", "action": {}, "pending_safety_checks": []},
        {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot"}},
        {"type": "image_generation_call", "id": "ig", "result": "AAAA", "status": "completed"},
        {"type": "code_interpreter_call", "id": "ci", "code": "1", "container_id": "x", "outputs": None},
        {"type": "mcp_list_tools", "id": "m", "server_label": "x", "tools": []},
        {"type": "mcp_approval_request", "id": "m", "name": "f", "arguments": "{}", "server_label": "x"},
        {"type": "mcp_approval_response", "approval_request_id": "m", "approve": True},
        {"type": "tool_search_call", "arguments": {}},
        {"type": "compaction", "encrypted_content": "gAAAA"},
        {"type": "compaction", "encrypted_content": "llmlaunch-summary-1:%"},
        {"type": "compaction", "encrypted_content": "llmlaunch-summary-1:_w=="},
        {"type": "compaction", "encrypted_content": 5},
        {"type": "ghost_snapshot", "ghost_commit": {}},
        {"type": "kind_of_tomorrow", "role": "user"},
    ],
    ids=lambda item: item["type"],
)  # fmt: skip
def test_items_that_say_nothing_to_the_model_are_skipped(item: dict[str, Any]) -> None:
    assert messages([USER, item, USER], NONE) == [USER, USER]


CALLS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": 1}', "id": "fc"}, call("c", "f", '{"a": 1}')),
    ({"type": "function_call", "id": "fc", "name": "f", "arguments": ""}, call("fc", "f", "{}")),
    ({"type": "function_call", "call_id": "c", "name": "f", "arguments": {"a": 1}}, call("c", "f", '{"a": 1}')),
    ({"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "*** Begin"},
     call("c", "apply_patch", '{"input": "*** Begin"}')),
    ({"type": "local_shell_call", "id": "l", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}},
     call("c", "local_shell", '{"type": "exec", "command": ["ls"]}')),
    ({"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}}, call("c", "shell", '{"commands": ["ls"]}')),
    ({"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file", "path": "x"}},
     call("c", "apply_patch", '{"type": "delete_file", "path": "x"}')),
]  # fmt: skip


@pytest.mark.parametrize(("item", "expected"), CALLS, ids=lambda value: value.get("type"))
def test_calls_of_all_kinds_are_calls(item: dict[str, Any], expected: dict[str, Any]) -> None:
    assert one(item) == {"role": "assistant", "content": "", "tool_calls": [expected]}


def test_a_call_of_another_server_has_its_result_in_itself() -> None:
    item = {
        "type": "mcp_call",
        "id": "m",
        "name": "f",
        "arguments": "{}",
        "server_label": "x",
        "output": "done",
    }
    assert messages([item], NONE) == [
        {"role": "assistant", "content": "", "tool_calls": [call("m", "f", "{}")]},
        {"role": "tool", "tool_call_id": "m", "content": "done"},
    ]


def test_the_calls_of_one_turn_are_one_message() -> None:
    items: list[dict[str, Any]] = [
        USER,
        {"role": "assistant", "content": "Let me see."},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "2", "name": "g", "input": "x"},
        {"type": "function_call_output", "call_id": "1", "output": "a"},
        {"type": "custom_tool_call_output", "call_id": "2", "output": "b"},
        {"type": "function_call", "call_id": "3", "name": "f", "arguments": "{}"},
    ]
    assert [(message["role"], len(message.get("tool_calls", ()))) for message in messages(items, NONE)] == [
        ("user", 0), ("assistant", 2), ("tool", 0), ("tool", 0), ("assistant", 1),
    ]  # fmt: skip


def test_a_call_has_the_name_under_which_its_function_is_offered_now() -> None:
    tools = [
        {"type": "namespace", "name": name, "tools": [{"type": "function", "name": "f"}]} for name in "ab"
    ]
    item = {"type": "function_call", "call_id": "c", "name": "f", "namespace": "b", "arguments": "{}"}
    assert one(item, offered_tools(tools, None))["tool_calls"][0]["function"]["name"] == "b__f"
    assert one(item)["tool_calls"][0]["function"]["name"] == "f"


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("done", "done"),
        (None, ""),
        ("", ""),
        ([], ""),
        ([{"type": "input_text", "text": "do"}, {"type": "output_text", "text": "ne"}], "done"),
        ({"type": "input_text", "text": "done"}, "done"),
        (
            [{"type": "input_text", "text": "See: "}, {"type": "input_image", "image_url": "data:x"}],
            "See: [image left out: this model only reads text]",
        ),
        ({"content": "done", "success": True}, '{"content": "done", "success": true}'),
        (
            [{"stdout": "é", "stderr": "", "outcome": {"type": "exit"}}],
            '{"stdout": "é", "stderr": "", "outcome": {"type": "exit"}}',
        ),
        (5, "5"),
    ],
    ids=str,
)
def test_results_of_any_form_are_text(output: Any, text: str) -> None:
    for kind in (
        "function_call_output",
        "custom_tool_call_output",
        "local_shell_call_output",
        "shell_call_output",
    ):
        item = {"type": kind, "call_id": "c", "output": output}
        assert one(item) == {"role": "tool", "tool_call_id": "c", "content": text}


def test_further_tools_may_come_as_items() -> None:
    tool = {"type": "function", "name": "f"}
    items: list[dict[str, Any]] = [
        USER,
        {"type": "additional_tools", "role": "developer", "tools": [tool]},
        {"type": "tool_search_output"},
    ]
    assert further_tools(items) == [tool]
    assert messages(items, NONE) == [USER]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({}, "input[0].type"),
        ({"type": 5}, "input[0].type"),
        ({"content": "x"}, "input[0].type"),
        ({"role": "tool", "content": "x"}, "input[0].role: 'tool'"),
        ({"role": "user"}, "input[0].content is missing"),
        ({"role": "user", "content": 5}, "input[0].content must be"),
        ({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}, "input[0].content[0]: this model only"),
        ({"role": "user", "content": [5]}, "input[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[0].call_id"),
        ({"type": "function_call", "call_id": "c", "arguments": "{}"}, "input[0].name"),
        ({"type": "function_call_output", "id": "x", "output": "x"}, "input[0].call_id"),
    ],
    ids=str,
)  # fmt: skip
def test_an_item_that_cannot_be_read_is_named(item: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        messages([USER, item], NONE, first=1)
    assert refused.value.param == "input"
    assert words in refused.value.message


def test_input_is_needed_unless_a_response_is_continued() -> None:
    nothing: tuple[Any, ...] = (None, "", [])
    for given in nothing:
        assert as_items(given, optional=True) == []
        with pytest.raises(BadRequest, match=r"input is (missing|empty)"):
            as_items(given)
