"""Chunks become the events that Anthropic's clients put together again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmlaunch.anthropic.response_translation import message, signature
from llmlaunch.anthropic.stream_translation import PING, StreamTranslation

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
LAST = {"choices": [], "usage": USAGE}


def chunk(finish: str | None = None, stop_reason: Any = None, **delta: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-7",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "stop_reason": stop_reason}],
    }


def call(index: int, arguments: str = "", **more: str) -> dict[str, Any]:
    start = {"id": more["id"], "function": {"name": more["name"], "arguments": arguments}} if more else {}
    return chunk(tool_calls=[{"index": index, "function": {"arguments": arguments}} | start])


def events(*chunks: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    translation = StreamTranslation("m", **options)
    stream = b"".join(translation.data(json.dumps(one).encode()) for one in chunks)
    stream += translation.data(b"[DONE]") + translation.end()
    return parsed(stream)


def parsed(stream: bytes) -> list[dict[str, Any]]:
    found = []
    for block in stream.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def put_together(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of a stream, as clients make it, with the order of events checked."""
    whole: dict[str, Any] = found[0]["message"]
    assert (found[0]["type"], found[1], found[-1]) == (
        "message_start",
        {"type": "ping"},
        {"type": "message_stop"},
    )
    arguments: dict[int, str] = {}
    open_block = None
    for one in found[2:-1]:
        if one["type"] == "content_block_start":
            assert open_block is None
            assert one["index"] == len(whole["content"])
            open_block = one["index"]
            whole["content"].append(one["content_block"])
        elif one["type"] == "content_block_delta":
            assert one["index"] == open_block
            block, delta = whole["content"][open_block], one["delta"]
            if delta["type"] == "input_json_delta":
                arguments[open_block] = arguments.get(open_block, "") + delta["partial_json"]
            else:
                (key,) = delta.keys() - {"type"}
                block[key] += delta[key]
        elif one["type"] == "content_block_stop":
            assert one["index"] == open_block
            open_block = None
        else:
            assert one["type"] == "message_delta"
            assert open_block is None
            whole |= one["delta"] | {"usage": one["usage"]}
    for at, text in arguments.items():
        whole["content"][at]["input"] = json.loads(text)
    return whole


def test_a_stream_says_what_the_whole_answer_says() -> None:
    found = events(
        chunk(role="assistant", content=""),
        chunk(reasoning_content="Let me "), chunk(reasoning_content="see."),
        chunk(content="\n\n"), chunk(content="I look."), chunk(content="\n"),
        call(0, id="call_1", name="Read"), call(0, '{"path": '), call(0, '"a"}'),
        call(1, id="call_2", name="List"),
        call(2, '{"path": "b"}', id="call_3", name="Read"),
        chunk("tool_calls"), LAST,
    )  # fmt: skip
    calls = [
        {"id": f"call_{at}", "function": {"name": name, "arguments": arguments}}
        for at, name, arguments in (
            (1, "Read", '{"path": "a"}'),
            (2, "List", ""),
            (3, "Read", '{"path": "b"}'),
        )
    ]
    said = {"content": "\n\nI look.\n", "reasoning_content": "Let me see.", "tool_calls": calls}
    choice = {"message": said, "finish_reason": "tool_calls"}
    assert put_together(found) == message({"id": "chatcmpl-7", "choices": [choice], "usage": USAGE}, "m")


def test_every_event_of_a_short_answer() -> None:
    assert events(chunk(content="Hi"), chunk("length"), LAST) == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_7", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0,
                },
            },
        },
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta", "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
            "usage": {"input_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 8, "output_tokens": 3},
        },
        {"type": "message_stop"},
    ]  # fmt: skip


def test_thinking_is_signed_where_it_ends() -> None:
    found = events(chunk(reasoning="Hm"), chunk(content="Hi"), chunk("stop"), LAST)
    deltas = [one["delta"] for one in found if one["type"] == "content_block_delta"]
    assert deltas == [
        {"type": "thinking_delta", "thinking": "Hm"},
        {"type": "signature_delta", "signature": signature("Hm")},
        {"type": "text_delta", "text": "Hi"},
    ]
    hidden = events(chunk(reasoning="Hm"), chunk(content="Hi"), chunk("stop"), LAST, thinking=False)
    assert put_together(hidden)["content"] == [{"type": "text", "text": "Hi"}]


def test_white_space_is_a_block_only_if_it_is_all_there_is() -> None:
    alone = events(chunk(content=" "), chunk(content="\n"), chunk("stop"), LAST)
    assert put_together(alone)["content"] == [{"type": "text", "text": " \n"}]
    before = events(chunk(content="\n\n"), call(0, "{}", id="c", name="f"), chunk("tool_calls"), LAST)
    assert [block["type"] for block in put_together(before)["content"]] == ["tool_use"]
    assert put_together(events(chunk(content=""), chunk("stop"), LAST))["content"] == []


def test_the_prompts_tokens_are_told_at_once_if_they_are_known() -> None:
    found = events(chunk(content="Hi"), chunk("stop"), input_tokens=5)
    assert found[0]["message"]["usage"]["input_tokens"] == found[-2]["usage"]["input_tokens"] == 5


def test_a_stop_sequence() -> None:
    found = put_together(events(chunk(content="Hi"), chunk("stop", "END"), LAST, stops=["END"]))
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "END")


def test_calls_without_ids_and_indices() -> None:
    whole = {"function": {"name": "f", "arguments": {"a": 1}}}
    found = put_together(events(chunk(tool_calls=[whole, whole]), chunk("stop"), LAST))
    assert [block["id"] for block in found["content"]] == ["toolu_7_0", "toolu_7_1"]
    assert [block["input"] for block in found["content"]] == [{"a": 1}] * 2
    assert found["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("chunks", "kind", "words"),
    [
        ([{"error": {"message": "Broken.", "code": "x"}}], "api_error", "Broken."),
        ([{"error": {"message": "Busy.", "code": 429}}], "rate_limit_error", "Busy."),
        ([chunk(content="Hi")], "api_error", "ended early"),
        ([], "api_error", "ended early"),
        (
            [call(0, "{", id="c", name="f"), call(1, "{", id="d", name="f"), call(0, "}")],
            "api_error",
            "mixed",
        ),
    ],
)
def test_what_goes_wrong_ends_the_stream(chunks: list[dict[str, Any]], kind: str, words: str) -> None:
    last = events(*chunks)[-1]
    assert (last["type"], last["error"]["type"]) == ("error", kind)
    assert words in last["error"]["message"]


def test_nothing_follows_the_end() -> None:
    translation = StreamTranslation("m")
    assert b"not valid JSON" in translation.data(b"{")
    assert translation.data(json.dumps(chunk(content="x")).encode()) == translation.end() == b""
    assert PING.endswith(b"\n\n")
