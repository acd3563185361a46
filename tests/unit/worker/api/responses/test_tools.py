"""Which tools a model is offered: functions are, also those of namespaces; other kinds are left out, and said where it matters."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.worker.api.responses.tools import Function, custom_input, offered_tools
from llmlaunch.worker.errors import BadRequest

SKIPPED: list[dict[str, Any]] = [
    {"type": "web_search", "external_web_access": False},
    {"type": "web_search_preview"},
    {"type": "local_shell"},
    {"type": "shell"},
    {"type": "mcp", "server_label": "docs", "server_url": "https://x"},
    {"type": "image_generation"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "file_search", "vector_store_ids": ["v"]},
    {"type": "computer_use_preview", "display_width": 1, "display_height": 1, "environment": "linux"},
    {"type": "tool_search"},
    {"type": "kind_of_tomorrow", "x": [1]},
]  # fmt: skip


def function(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": {"type": "object"}} | fields


def namespace(name: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "description": "", "tools": list(tools)}


def names(tools: list[dict[str, Any]], choice: Any = None) -> list[str]:
    return [tool["function"]["name"] for tool in offered_tools(tools, choice).tools]


@pytest.mark.parametrize("tool", SKIPPED, ids=lambda tool: tool["type"])
def test_a_kind_that_is_no_function_is_left_out(tool: dict[str, Any]) -> None:
    offered = offered_tools([tool, function("f"), tool], "auto")
    assert [tool["function"]["name"] for tool in offered.tools] == ["f"]
    assert [tool["name"] for tool in offered.declared] == ["f"]
    assert offered.choice == "auto"
    alone = offered_tools([tool], "auto")
    assert (alone.tools, alone.choice) == ((), None)


def test_the_functions_of_a_namespace_are_offered_one_by_one() -> None:
    tools = [function("run"), namespace("agents", function("spawn"), function("wait"), SKIPPED[0])]
    offered = offered_tools(tools, None)
    assert list(offered.functions) == ["run", "spawn", "wait"]
    assert offered.function("spawn") == Function("spawn", "agents")
    assert offered.function("run") == Function("run")
    assert offered.function("invented") == Function("invented")
    assert offered.name_of(Function("spawn", "agents")) == "spawn"
    assert offered.declared[1] == tools[1]


def test_functions_of_one_name_are_told_apart_by_their_namespaces() -> None:
    offered = offered_tools(
        [function("f"), namespace("a", function("f")), namespace("b", function("f"))], None
    )
    assert list(offered.functions) == ["f", "a__f", "b__f"]
    for name in offered.functions:
        assert offered.name_of(offered.function(name)) == name


def test_what_a_model_is_told_of_a_function() -> None:
    flat = function("f", description="F.", strict=None, defer_loading=True, allowed_callers=None)
    expected = {"name": "f", "description": "F.", "parameters": {"type": "object"}}
    nested = {"type": "function", "function": dict(expected)}
    without_type = {"name": "f", "description": "F.", "parameters": {"type": "object"}}
    no_parameters = {"type": "function", "name": "f", "description": "F.", "parameters": None}
    for tool in (flat, nested, without_type):
        assert [found["function"] for found in offered_tools([tool], None).tools] == [expected]
        assert offered_tools([tool], None).declared[0]["type"] == "function"
    assert offered_tools([no_parameters], None).tools[0]["function"] == {"name": "f", "description": "F."}


GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
PATCH: dict[str, Any] = {"type": "custom", "name": "patch", "description": "Edits files.", "format": GRAMMAR}


@pytest.mark.parametrize(
    ("tool", "description"),
    [
        (PATCH, 'Edits files.\n\ninput must match this grammar (lark):\nstart: "x"'),
        (PATCH | {"format": {"type": "text"}}, "Edits files."),
        (PATCH | {"format": None, "description": None}, None),
        (
            {"type": "custom", "custom": {"name": "patch", "description": "Edits files.", "format": 5}},
            "Edits files.",
        ),
    ],
    ids=["grammar", "text", "bare", "as in chat"],
)
def test_a_custom_tool_is_a_function_of_one_text(tool: dict[str, Any], description: str | None) -> None:
    offered = offered_tools([tool], {"type": "custom", "name": "patch"})
    (told,) = offered.tools
    assert told["function"].get("description") == description
    assert told["function"]["parameters"]["required"] == ["input"]
    assert offered.choice == {"type": "function", "function": {"name": "patch"}}
    assert offered.function("patch").custom
    assert offered.declared[0]["type"] == "custom"
    assert offered.declared[0]["name"] == "patch"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "*** Begin\\n+\\"x\\""}', '*** Begin\n+"x"'),
        ('"bare"', "bare"),
        ('{"patch": "x"}', '{"patch": "x"}'),
        ('{"input": 5}', '{"input": 5}'),
        ('{"input": "cut', '{"input": "cut'),
        ("", ""),
    ],
)
def test_the_input_of_a_custom_tool_is_what_the_model_wrote(arguments: str, text: str) -> None:
    assert custom_input(arguments) == text


TOOLS = [function("f"), function("g"), namespace("n", function("h"), function("i")), {"type": "web_search"}]


@pytest.mark.parametrize(
    ("choice", "offered", "forced"),
    [
        (None, "fghi", None),
        ("none", "fghi", "none"),
        ("required", "fghi", "required"),
        ({"type": "auto"}, "fghi", "auto"),
        ({"type": "function", "name": "g"}, "fghi", "g"),
        ({"type": "function", "function": {"name": "g"}}, "fghi", "g"),
        ({"type": "function", "name": "h", "namespace": "n"}, "fghi", "h"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}, "g", "auto"),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"name": "g"}, {"name": "f"}]}, "fg", "required"),
        ({"type": "allowed_tools", "tools": [{"type": "namespace", "name": "n"}]}, "hi", "auto"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}, {"name": "f"}]}, "f", "auto"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "server_label": "x"}]}, "", None),
        ({"type": "custom", "name": "g"}, "fghi", "g"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
            {"type": "function", "function": {"name": "g"}}]}}, "g", "required"),
    ],
    ids=str,
)  # fmt: skip
def test_a_choice_is_obeyed(choice: Any, offered: str, forced: str | None) -> None:
    found = offered_tools(TOOLS, choice)
    assert "".join(found.functions) == offered
    if isinstance(found.choice, dict):
        assert found.choice == {"type": "function", "function": {"name": forced}}
    else:
        assert found.choice == forced


@pytest.mark.parametrize(
    ("tools", "choice", "words"),
    [
        (TOOLS, {"type": "web_search"}, "'web_search' is not supported"),
        (TOOLS, {"type": "custom", "name": "apply_patch"}, "'apply_patch' is not one"),
        (TOOLS, {"type": "mcp", "server_label": "x"}, "'mcp' is not supported"),
        (TOOLS, {"type": "function", "name": "x"}, "'x' is not one"),
        (TOOLS, {"type": "function"}, "None is not one"),
        (TOOLS, "f", "'f' is not auto"),
        (TOOLS, {"type": "allowed_tools", "tools": [{"type": "function", "name": "x"}]}, "'x' is not one"),
        (TOOLS, {"type": "allowed_tools", "tools": "f"}, "list of tools"),
        (TOOLS, {"type": "allowed_tools", "mode": "none", "tools": []}, "'none' is not auto or required"),
        (
            TOOLS,
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
            "a call is required",
        ),
        ([{"type": "web_search"}, {"type": "local_shell"}], "required", "no local_shell, web_search"),
        ([], "required", "there is no function to call"),
    ],
    ids=str,
)
def test_a_choice_that_cannot_be_obeyed_says_why(tools: Any, choice: Any, words: str) -> None:
    with pytest.raises(BadRequest, match="tool_choice") as refused:
        offered_tools(tools, choice)
    assert refused.value.param == "tool_choice"
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ([function("f"), function("f")], "duplicate function name 'f'"),
        ([function("f"), {"type": "function", "parameters": {}}], "tools[1].name"),
        ([function("f"), {"type": "custom", "name": "f"}], "duplicate function name 'f'"),
        ([{"type": "custom", "format": {"type": "text"}}], "tools[0].name"),
        ([{"type": None}], "tools[0].type"),
        ([{"type": "namespace", "name": "n"}], "tools[0] must have a name and a list"),
        ([namespace("n", function("f"), {"type": "function"})], "tools[0].tools[1].name"),
        ([{"type": "namespace", "name": "n", "tools": [5]}], "tools[0].tools[0]"),
    ],
    ids=str,
)
def test_a_tool_that_is_not_valid_is_named(tools: Any, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        offered_tools(tools, "auto")
    assert refused.value.param == "tools"
    assert words in refused.value.message
