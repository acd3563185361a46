"""Anthropic's dialect: bodies, streams however they are cut, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmlaunch.gateway import errors
from llmlaunch.gateway.dialects.anthropic import COUNT_TOKENS, MESSAGES
from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.payload.model_field import InvalidBody

BODY: dict[str, Any] = {
    "model": "m",
    "max_tokens": 5,
    "stream": True,
    "stop_sequences": ["END"],
    "messages": [{"role": "user", "content": "Hi"}],
}
STREAM = (
    b": keep-alive\n\n"
    b'data: {"id":"chatcmpl-7","choices":[{"delta":{"content":"Gr\xc3\xbc"}}]}\r\n\r\n'
    b'data: {"choices":[{"delta":{"content":"\xc3\x9fe"}}]}\n\n'
    b'data: {"choices":[{"delta":{},"finish_reason":"stop","stop_reason":"END"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)


def answered(
    content: bytes, kind: bytes = b"application/json", status: int = 200, size: int = 1 << 20
) -> bytes:
    translator = MESSAGES.request(json.dumps(BODY).encode()).translator(status, kind)
    parts = [translator.feed(content[at : at + size]) for at in range(0, len(content), size)]
    return b"".join(parts) + translator.end()


def test_a_request() -> None:
    found = MESSAGES.request(json.dumps(BODY).encode())
    assert found.path == b"/v1/chat/completions"
    assert json.loads(found.body) == {
        "model": "m", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5, "stop": ["END"],
        "messages": [{"role": "user", "content": "Hi"}],
    }  # fmt: skip


def test_a_body_that_cannot_be_translated() -> None:
    for body in (b"{", b"[]", b'{"model": "m"}'):
        with pytest.raises(InvalidBody):
            MESSAGES.request(body)


def test_a_stream_however_it_is_cut() -> None:
    whole = answered(STREAM, b"text/event-stream")
    assert whole.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert b'"stop_sequence":"END"' in whole
    text = "".join(
        event["delta"]["text"]
        for line in whole.splitlines()
        if line.startswith(b"data:") and (event := json.loads(line[5:])).get("delta", {}).get("text")
    )
    assert text == "Grüße"
    for size in range(1, 40):
        assert answered(STREAM, b"text/event-stream", size=size).replace(PING, b"") == whole.replace(
            PING, b""
        )


PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def test_what_keeps_a_stream_alive_does_so_here() -> None:
    translator = MESSAGES.request(json.dumps(BODY).encode()).translator(200, b"text/event-stream")
    assert translator.feed(b": keep-alive\n\n") == PING


def test_a_whole_answer() -> None:
    choice = {"message": {"content": "Hi"}, "finish_reason": "stop"}
    found = json.loads(answered(json.dumps({"id": "chatcmpl-7", "choices": [choice]}).encode()))
    assert (found["model"], found["content"]) == ("m", [{"type": "text", "text": "Hi"}])
    with pytest.raises(InvalidResponse):
        answered(b"{")


def test_tokens_are_counted_with_a_request_for_one() -> None:
    found = COUNT_TOKENS.request(json.dumps(BODY | {"stream": False}).encode())
    body = json.loads(found.body)
    assert (body["max_tokens"], "stream" in body) == (1, False)
    translator = found.translator(200, b"application/json")
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
    assert translator.feed(json.dumps({"usage": usage}).encode()) == b""
    assert json.loads(translator.end()) == {"input_tokens": 9}
    refused = found.translator(400, b"application/json")
    refused.feed(b'{"error": {"message": "No."}}')
    assert json.loads(refused.end())["error"] == {"type": "invalid_request_error", "message": "No."}


def test_errors_of_engines_and_of_the_gateway() -> None:
    assert json.loads(answered(b"overloaded", b"text/plain", 503)) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "overloaded"},
    }
    reply = MESSAGES.error(errors.queue_full("m", 3), b"req-1")
    assert (reply.status, reply.fields) == (429, b"retry-after: 2\r\nrequest-id: req-1\r\n")
    body = json.loads(reply.body)
    assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", "rate_limit_error", "req-1")
    assert MESSAGES.interruption("it broke").startswith(b"\n\nevent: error\ndata: ")
