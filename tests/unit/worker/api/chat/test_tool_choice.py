"""What clients write for tool_choice and function_call."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.worker.api.chat.tool_choice import ToolChoice, read_choice
from llmlaunch.worker.errors import BadRequest

LISTED = [{"type": "function", "function": {"name": "f"}}, {"type": "function", "name": "g"}]
BOTH = frozenset(("f", "g"))


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("required", named="f")),
        ({"type": "function", "name": "f"}, ToolChoice("required", named="f")),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": LISTED}}, ToolChoice("required", allowed=BOTH)),
        ({"type": "allowed_tools", "mode": "auto", "tools": LISTED}, ToolChoice("auto", allowed=BOTH)),
        ({"type": "allowed_tools", "tools": LISTED}, ToolChoice("auto", allowed=BOTH)),
    ],
    ids=lambda value: None if isinstance(value, ToolChoice) else str(value)[:60],
)  # fmt: skip
def test_choices(given: Any, choice: ToolChoice) -> None:
    assert read_choice(given) == choice


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ("perhaps", "tool_choice"),
        ("required", "function_call"),
        ({}, "tool_choice"),
        ({"type": "function", "function": None}, "tool_choice"),
        ({"type": "allowed_tools"}, "tool_choice"),
        ({"type": "allowed_tools", "mode": "none", "tools": LISTED}, "tool_choice"),
        ({"type": "allowed_tools", "tools": ["f"]}, "tool_choice"),
        ({"name": ""}, "function_call"),
    ],
    ids=str,
)
def test_what_is_no_choice(given: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_choice(given, param)
    assert caught.value.param == param
