"""Whatever clients and engines send, the translations answer or refuse it; nothing else is ever raised."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.anthropic import errors
from llmlaunch.anthropic.errors import InvalidRequest
from llmlaunch.anthropic.request_translation import chat_request, shows_thinking
from llmlaunch.anthropic.response_translation import message
from llmlaunch.anthropic.stream_translation import StreamTranslation
from tests.unit.anthropic.test_request_translation import RECORDED

ODD = st.recursive(
    st.sampled_from((None, True, 0, -1, 1.5, 1e400, "", " ", "text", "\ud800", "tool", "user", "error")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("type", "text", "x")), inner, max_size=2),
    max_leaves=3,
)  # fmt: skip
CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
CHUNKS: list[Any] = [
    {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": "Hm."}}]},
    {"choices": [{"index": 0, "delta": {"content": "Hi"}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]},
    {"choices": [], "usage": USAGE},
]  # fmt: skip
WHOLE: Any = {
    "id": "chatcmpl-1",
    "choices": [
        {
            "message": {"content": "Hi", "reasoning_content": "Hm.", "tool_calls": [CALL]},
            "finish_reason": "stop",
            "stop_reason": "END",
        }
    ],
    "usage": USAGE,
}


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [at, *(path for key in keys for path in paths(value[key], (*at, key)))]


def spoilt(value: Any, data: st.DataObject) -> Any:
    """``value`` with something odd in one or two places."""
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from([path for path in paths(value) if path]))
        inside = value
        for key in way:
            inside = inside[key]
        inside[last] = data.draw(ODD)
    return value


@given(turn=st.sampled_from(("first", "second")), images=st.booleans(), data=st.data())
def test_bodies_of_clients(turn: str, images: bool, data: st.DataObject) -> None:
    body = spoilt(RECORDED[turn]["body"], data)
    with contextlib.suppress(InvalidRequest):
        json.dumps(chat_request(body, images=images))
    shows_thinking(body)


@given(data=st.data())
def test_streams_of_engines(data: st.DataObject) -> None:
    translation = StreamTranslation("m", stops=["END"])
    for chunk in spoilt(CHUNKS, data):
        translation.data(json.dumps(chunk).encode())
    last = translation.end()
    assert not last or last.endswith(b"\n\n")


@given(data=st.data())
def test_answers_of_engines(data: st.DataObject) -> None:
    spoiled = spoilt(WHOLE, data)
    json.dumps(message(spoiled, "m", stops=["END"]))
    json.dumps(errors.from_openai(500, json.dumps(spoiled).encode()))


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"error": ' * 3000 + b"}" * 3000, b"\xff\xfe", b'"x"', b"null"]
)
def test_errors_of_any_form(body: bytes) -> None:
    assert errors.from_openai(500, body)["error"]["message"]
