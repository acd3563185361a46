"""Anthropic's client library against a worker with a real, tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.e2e.worker.server import Worker

HELLO: Any = [{"role": "user", "content": "Hello"}]
TURN: Any = {
    "name": "Turn",
    "description": "Turn around.",
    "input_schema": {"type": "object", "properties": {"to": {"enum": ["left", "right"]}}, "required": ["to"]},
}
SEARCH: Any = {"type": "web_search_20250305", "name": "web_search"}


@pytest.fixture
def claude(writer: Worker) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=writer.url, api_key="none", max_retries=0) as made:
        yield made


def test_messages_whole_and_streamed(claude: anthropic.Anthropic) -> None:
    rules: Any = {
        "model": "tiny", "max_tokens": 12, "messages": HELLO, "system": [{"type": "text", "text": "Go."}], "extra_body": {"temperature": 0},
    }  # fmt: skip
    whole = claude.messages.create(**rules)
    assert (whole.model, whole.role, whole.stop_reason, whole.usage.output_tokens) == (
        "tiny", "assistant", "max_tokens", 12,
    )  # fmt: skip
    with claude.messages.stream(**rules) as stream:
        said = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    (block,) = whole.content
    assert block.type == "text"
    assert said == block.text
    assert streamed.usage.output_tokens == 12
    assert "tiny" in [model.id for model in claude.models.list()]
    counted = claude.messages.count_tokens(
        model="tiny", messages=HELLO, system=rules["system"], tools=[SEARCH]
    )
    assert counted.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "Turn"}])
def test_tools_and_their_results(claude: anthropic.Anthropic, choice: Any) -> None:
    rules: Any = {
        "model": "tiny", "max_tokens": 300, "messages": HELLO, "tools": [TURN, SEARCH],
        "tool_choice": choice | {"disable_parallel_tool_use": True}, "extra_body": {"seed": 2},
    }  # fmt: skip
    whole = claude.messages.create(**rules)
    call = whole.content[-1]
    assert call.type == "tool_use"
    assert (whole.stop_reason, call.name) == ("tool_use", "Turn")
    assert call.input in ({"to": "left"}, {"to": "right"})
    with claude.messages.stream(**rules) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        streamed = stream.get_final_message().content[-1]
    assert streamed.type == "tool_use"
    assert streamed.input == json.loads("".join(pieces)) == call.input
    result: Any = [
        {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "done"}]}
    ]
    turns: Any = [
        *HELLO,
        {"role": "assistant", "content": whole.content},
        {"role": "user", "content": result},
    ]
    told = claude.messages.create(model="tiny", max_tokens=3, messages=turns, tools=[TURN])
    assert told.usage.output_tokens == 3


def test_errors_are_the_clients_own(claude: anthropic.Anthropic) -> None:
    image: Any = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR"},
    }
    with pytest.raises(anthropic.BadRequestError, match="cannot read images"):
        claude.messages.create(model="tiny", max_tokens=3, messages=[{"role": "user", "content": [image]}])
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        claude.messages.create(model="tiny", max_tokens=3, messages=[{"role": "user", "content": "x" * 9000}])
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(model="nobody", max_tokens=3, messages=HELLO)
    assert isinstance(missing.value.body, dict)
    assert missing.value.body["error"]["type"] == "not_found_error"
