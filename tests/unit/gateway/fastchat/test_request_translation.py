"""What reaches a FastChat worker of an OpenAI request, and what is refused before."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.gateway.fastchat.conversation import ConversationTemplate
from llmlaunch.gateway.fastchat.request_translation import (
    UnsupportedRequest,
    answer_budget,
    chat,
    completion,
    embedding,
)

TEMPLATE = ConversationTemplate(
    "ADD_COLON_TWO", ("U", "A"), system="Sys.", sep=" ", sep2="|", stops=("U:",), stop_token_ids=(9,)
)
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT: dict[str, Any] = {"model": "m", "prompt": "hi"}


def sent(body: dict[str, Any]) -> dict[str, Any]:
    asked = chat(body) if "messages" in body else completion(body)
    return asked.parameters(TEMPLATE, asked.texts(TEMPLATE)[0], 7)


def test_a_chat_becomes_a_prompt_with_the_templates_stops() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"},
        {"role": "developer", "content": "And kind."},
        {"role": "user", "content": "d"},
    ]
    body = CHAT | {"messages": messages, "stop": ["END", "U:"], "temperature": 0, "top_p": 1, "top_k": 5}
    assert sent(body) == {
        "model": "m", "prompt": "Be brief.\nAnd kind. U: a\nb A: c|U: d A:", "max_new_tokens": 7, "echo": False,
        "stop": ["END", "U:"], "stop_token_ids": [9], "logprobs": None, "temperature": 0.0, "top_p": 1.0, "top_k": 5,
        "presence_penalty": 0.0, "frequency_penalty": 0.0,
    }  # fmt: skip


def test_a_completion_is_the_clients_text_alone() -> None:
    found = sent(TEXT | {"logprobs": 2, "repetition_penalty": 1.5, "stop": "x"})
    assert (found["prompt"], found["stop"], found["logprobs"]) == ("hi", ["x"], 2)
    assert found["repetition_penalty"] == 1.5


def test_temperature_null_is_the_default_and_never_null() -> None:
    """In FastChat's worker it costs a slot for good."""
    names = (
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "top_k",
        "stop",
    )
    found = sent(CHAT | dict.fromkeys(names))
    assert (found["temperature"], found["top_p"], found["top_k"], found["stop"]) == (1.0, 1.0, -1, ["U:"])
    assert "repetition_penalty" not in found


def test_lengths() -> None:
    assert chat(CHAT).max_tokens is None
    assert chat(CHAT | {"max_tokens": 5, "max_completion_tokens": 3}).max_tokens == 3
    assert completion(TEXT).max_tokens == 16
    assert answer_budget(100, 50, None, "prompt") == 49
    assert answer_budget(100, 50, 10, "prompt") == 10
    assert answer_budget(100, 50, 90, "prompt") == 49
    with pytest.raises(UnsupportedRequest) as caught:
        answer_budget(100, 99, None, "prompt")
    assert (caught.value.code, caught.value.status, caught.value.param) == (
        "context_length_exceeded",
        400,
        "prompt",
    )


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": []}, "messages"), ({"messages": "hi"}, "messages"), ({"messages": ["hi"]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a\ud800"}]}, "messages"),
        ({"temperature": -1}, "temperature"), ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"), ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 2}, "top_p"), ({"top_k": 1.5}, "top_k"), ({"top_k": -2}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": "5"}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"), ({"n": 129}, "n"), ({"stop": [""]}, "stop"), ({"stop": 5}, "stop"), ({"stop": "\ud800"}, "stop"),
        ({"stream": "yes"}, "stream"), ({"stream_options": []}, None), ({"stream_options": 5}, "stream_options"),
        ({"tools": [{}]}, "tools"), ({"tool_choice": "required"}, "tool_choice"), ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"logprobs": True}, "logprobs"), ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
    ids=str,
)  # fmt: skip
def test_what_the_worker_can_not_do_or_would_not_survive_is_refused(
    more: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(UnsupportedRequest) as caught:
        chat(CHAT | more)
    assert caught.value.param == (param or "stream_options")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "more",
    [
        {"tools": []}, {"tool_choice": "none"}, {"logit_bias": {}}, {"response_format": {"type": "text"}}, {"n": None},
        {"seed": 5}, {"user": "me"}, {"stream": None, "stream_options": None}, {"logprobs": False}, {"top_k": 0},
    ],
    ids=str,
)  # fmt: skip
def test_what_asks_for_nothing_passes(more: dict[str, Any]) -> None:
    assert chat(CHAT | more).n == 1


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": None}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"), ({"echo": True}, "echo"), ({"best_of": 3}, "best_of"), ({"suffix": "x"}, "suffix"),
        ({"logprobs": 9}, "logprobs"), ({"prompt": ["x"] * 65, "n": 2}, "n"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_completions_that_can_not_be(more: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedRequest) as caught:
        completion(TEXT | more)
    assert caught.value.param == param


def test_embeddings() -> None:
    asked = embedding({"model": "m", "input": ["a", "b"], "encoding_format": "base64"})
    assert (asked.inputs, asked.base64) == (("a", "b"), True)
    for more in (
        {"input": [[1]]},
        {"input": [""]},
        {"dimensions": 5},
        {"encoding_format": "hex"},
        {"input": ["x"] * 2049},
    ):
        with pytest.raises(UnsupportedRequest):
            embedding({"model": "m", "input": "a"} | more)
