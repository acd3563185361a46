"""Turns of one conversation are told apart from other conversations, whatever the body around them looks like."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.routing.affinity import LOOK_AT, TEXT, prefix_of

Message = dict[str, object]


def say(role: str, content: object) -> Message:
    return {"role": role, "content": content}


def chat(*messages: Message, **more: object) -> bytes:
    return json.dumps({"model": "m", **more, "messages": list(messages)}).encode()


SYSTEM = say("system", "You are helpful. " * 40)


@given(st.text(max_size=300), st.lists(st.text(max_size=50), max_size=4))
def test_every_turn_of_a_conversation_begins_alike(first: str, later: list[str]) -> None:
    history = [SYSTEM, say("user", first)]
    begin = prefix_of(chat(*history))
    for number, text in enumerate(later):
        history.append(say("user" if number % 2 else "assistant", text))
        assert prefix_of(chat(*history, temperature=number)) == begin
    assert prefix_of(chat(SYSTEM, say("user", first + "!"))) != begin
    assert prefix_of(chat(say("system", "Other."), say("user", first))) != begin


def test_a_long_first_message_counts_by_its_beginning() -> None:
    long = "word " * LOOK_AT
    assert prefix_of(chat(say("user", long))) == prefix_of(chat(say("user", long), say("assistant", "Yes.")))


def test_contents_of_parts_and_other_apis() -> None:
    parts = say(
        "user",
        [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:x"}}],
    )
    assert prefix_of(chat(parts)) == prefix_of(chat(parts, say("assistant", "A cat.")))
    once = json.dumps({"input": [say("user", "Hi")], "model": "m"}).encode()
    again = json.dumps({"input": [say("user", "Hi"), say("assistant", "Yo")], "model": "m"}).encode()
    assert prefix_of(once) == prefix_of(again) != prefix_of(once.replace(b"Hi", b"Ho"))


@pytest.mark.parametrize("prompt", ["x" * TEXT, [1, 2, 3] * TEXT, ["one text " * TEXT]])
def test_prompts_count_by_their_beginning(prompt: Any) -> None:
    longer = prompt + prompt
    assert prefix_of(json.dumps({"prompt": prompt}).encode()) == prefix_of(
        json.dumps({"prompt": longer}).encode()
    )
    assert prefix_of(b'{"prompt": "a"}') != prefix_of(b'{"prompt": "b"}')
    assert prefix_of(b'{"prompt": "a", "n": 1}') == prefix_of(b'{"n": 2, "prompt": "a"}')


def test_no_conversation_no_prefix() -> None:
    assert prefix_of(b"{}") == prefix_of(b"") == b""


@given(st.binary(max_size=300))
def test_nonsense_does_no_harm(noise: bytes) -> None:
    for begin in (b'"messages":', b'{"messages":[', b'{"prompt":"', b'{"messages":[{"role":'):
        assert len(prefix_of(begin + noise)) == 16
