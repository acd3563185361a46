"""Messages as clients write them."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.worker.api.chat.messages import plain_messages
from llmlaunch.worker.api.chat.protocol import Message
from llmlaunch.worker.errors import BadRequest


def plain(message: dict[str, Any]) -> dict[str, Any]:
    (found,) = plain_messages([Message.model_validate(message)])
    return found


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
def test_parts_become_one_text(role: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert plain({"role": role, "content": parts}) == {"role": role, "content": "ab"}


@pytest.mark.parametrize("role", ["assistant", "tool", "function"])
def test_no_content_is_empty_where_it_may_be(role: str) -> None:
    assert plain({"role": role, "content": None})["content"] == ""


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user"}, "messages[0].content"),
        ({"role": "system", "content": None}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "assistant", "tool_calls": {}}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "messages[0].tool_calls[0]"),
        ({"role": "assistant", "function_call": {"arguments": "{}"}}, "messages[0].function_call"),
        ({"role": "assistant", "function_call": "f"}, "messages[0].function_call"),
    ],
    ids=str,
)
def test_malformed_messages_are_refused(message: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        plain(message)
    assert caught.value.param == param
