"""Chat completions become messages."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.anthropic import errors
from llmlaunch.anthropic.response_translation import message, signature

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "Read", "arguments": '{"path": "a"}'}}


def translated(said: dict[str, Any], finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    options = {key: more.pop(key) for key in ("stops", "thinking") if key in more}
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": finish, **more}
    return message({"id": "chatcmpl-7", "model": "x", "choices": [choice], "usage": USAGE}, "m", **options)


def test_a_message() -> None:
    assert translated({"content": "Hi"}) == {
        "id": "msg_7",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 8,
            "output_tokens": 3,
        },
    }


def test_thinking_text_and_calls_in_their_order() -> None:
    said = {"content": "Let me look.", "reasoning_content": "Hm.", "tool_calls": [CALL]}
    found = translated(said, "tool_calls")
    assert found["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": signature("Hm.")},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "call_1", "name": "Read", "input": {"path": "a"}},
    ]
    assert found["stop_reason"] == "tool_use"
    assert translated(said, thinking=False)["content"] == found["content"][1:]
    assert translated({"content": None, "reasoning": "Hm."})["content"] == found["content"][:1]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"function": {"name": "f", "arguments": ""}}, {"id": "toolu_7_0", "name": "f", "input": {}}),
        ({"id": "c", "function": {"name": "f", "arguments": "{"}}, {"id": "c", "name": "f", "input": {"arguments": "{"}}),
        ({"id": "c", "function": {"name": "f", "arguments": "[1]"}}, {"id": "c", "name": "f", "input": {"arguments": "[1]"}}),
        ({"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}, {"id": "c", "name": "f", "input": {"a": 1}}),
        ({"id": "c"}, {"id": "c", "name": "", "input": {}}),
    ],
)  # fmt: skip
def test_calls_of_all_kinds(call: dict[str, Any], expected: dict[str, Any]) -> None:
    (found,) = translated({"content": " ", "tool_calls": [call]})["content"]
    assert found == {"type": "tool_use", **expected}


@pytest.mark.parametrize(
    ("finish", "more", "expected"),
    [
        ("stop", {}, ("end_turn", None)), ("length", {}, ("max_tokens", None)), (None, {}, ("end_turn", None)),
        ("content_filter", {}, ("refusal", None)), ("tool_calls", {}, ("tool_use", None)), ("new", {}, ("end_turn", None)),
        ("stop", {"stop_reason": "END", "stops": ["END"]}, ("stop_sequence", "END")),
        ("stop", {"stop_reason": "</s>", "stops": ["END"]}, ("end_turn", None)),
        ("stop", {"stop_reason": 2, "stops": ["END"]}, ("end_turn", None)),
    ],
)  # fmt: skip
def test_why_it_ends(finish: str | None, more: dict[str, Any], expected: tuple[str, str | None]) -> None:
    found = translated({"content": "x"}, finish, **more)
    assert (found["stop_reason"], found["stop_sequence"]) == expected


def test_a_forced_call_that_ends_with_stop() -> None:
    assert translated({"tool_calls": [CALL]}, "stop")["stop_reason"] == "tool_use"


def test_nothing_at_all() -> None:
    assert message({}, "m")["content"] == []
    assert translated({"content": " \n"})["content"] == [{"type": "text", "text": " \n"}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error": {"message": "No.", "type": "x", "param": null, "code": "y"}}', "No."),
        (b'{"error": "No."}', "No."), (b'{"message": "No."}', "No."), (b'{"detail": "No."}', "No."),
        (b"<html>", "<html>"), (b"", "the engine answered with status 404"), (b"[1]", "[1]"),
        (b'{"detail": [{"loc": ["x"]}]}', '[{"loc": ["x"]}]'),
    ],
)  # fmt: skip
def test_errors_of_all_engines(body: bytes, expected: str) -> None:
    assert errors.from_openai(404, body, "req-1") == {
        "type": "error",
        "error": {"type": "not_found_error", "message": expected},
        "request_id": "req-1",
    }


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_know() -> None:
    for body in (
        b'{"error": {"message": "Too much.", "code": "context_length_exceeded"}}',
        b'{"error": {"message": "This model\'s maximum context length is 5 tokens.", "code": 400}}',
    ):
        assert errors.from_openai(400, body)["error"]["message"].startswith("prompt is too long: T")


def test_types_of_errors() -> None:
    found = {status: errors.error_type(status) for status in (400, 401, 403, 404, 422, 429, 500, 502, 503)}
    assert found == {
        400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
        422: "invalid_request_error", 429: "rate_limit_error", 500: "api_error", 502: "api_error", 503: "overloaded_error",
    }  # fmt: skip
