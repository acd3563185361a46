"""What chat tells of thoughts; FastChat's addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmlaunch.worker.output.reasoning import CLOSE
from llmlaunch.worker.tokenization.tokenizer import Tokenizer
from tests.unit.worker import tiny
from tests.unit.worker.scripted import Served, served

THOUGHT = "<think>\nHm, a greeting.\n</think>\n\nHello."
SAID: Any = [{"role": "user", "content": "Hi"}]


def run(work: Callable[[Served], Awaitable[Any]], *texts: str, **arguments: Any) -> Any:
    async def inside() -> Any:
        async with served(*texts, **arguments) as made:
            return await work(made)

    return asyncio.run(inside())


def test_thoughts_come_in_a_field_of_their_own() -> None:
    async def work(made: Served) -> None:
        answer = await made.openai.chat.completions.create(model="m", messages=SAID)
        message: Any = answer.choices[0].message
        assert message.reasoning_content == "Hm, a greeting."
        assert message.content == "Hello."
        assert answer.usage is not None
        details: Any = answer.usage.completion_tokens_details
        assert len("Hm, a greeting.") < details.reasoning_tokens < answer.usage.completion_tokens - 5
        stream = await made.openai.chat.completions.create(model="m", messages=SAID, stream=True)
        deltas: list[Any] = [chunk.choices[0].delta async for chunk in stream]
        thoughts = [getattr(delta, "reasoning_content", None) or "" for delta in deltas]
        assert "".join(thoughts) == "Hm, a greeting."
        assert "".join(delta.content or "" for delta in deltas) == "Hello."
        assert not any("<" in thought for thought in thoughts)
        hidden: Any = (
            (
                await made.openai.chat.completions.create(
                    model="m", messages=SAID, extra_body={"include_reasoning": False}
                )
            )
            .choices[0]
            .message
        )
        assert hidden.content == "Hello."
        assert not hasattr(hidden, "reasoning_content")

    run(work, THOUGHT, reasoning=True)


def test_with_reasoning_off_the_answer_is_as_it_was_written() -> None:
    async def work(made: Served) -> None:
        answer = await made.openai.chat.completions.create(model="m", messages=SAID)
        assert answer.choices[0].message.content == THOUGHT
        assert answer.usage is not None
        assert answer.usage.completion_tokens_details is None

    run(work, THOUGHT)


def test_thoughts_that_the_prompt_opened_and_calls_behind_thoughts() -> None:
    async def work(made: Served) -> None:
        # The template has no mark of its own: the message that is continued opens the thought.
        said: Any = [*SAID, {"role": "assistant", "content": "<think>Well,"}]
        body = {"continue_final_message": True}
        continued: Any = await made.http.post(
            "/v1/chat/completions", json={"model": "m", "messages": said} | body
        )
        message = continued.json()["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("I see.", "Hello.")
        tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
        called = await made.openai.chat.completions.create(model="m", messages=SAID, tools=tools)
        choice: Any = called.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.reasoning_content == "I must call."
        assert choice.message.tool_calls[0].function.name == "f"

    texts = (
        "I see.</think>Hello.",
        '<think>I must call.</think>\n<tool_call>{"name": "f", "arguments": {}}</tool_call>',
    )
    run(work, *texts, reasoning=True)


def test_a_template_that_opens_the_thoughts() -> None:
    async def work(made: Served) -> None:
        answer: Any = await made.openai.chat.completions.create(model="m", messages=SAID)
        assert answer.choices[0].message.reasoning_content == "Hm."
        assert answer.choices[0].message.content == "Hello."
        assert made.script.prompts == ["u:Hi\na:<think>"]
        responded = await made.openai.responses.create(model="m", input="Hi")
        assert responded.output_text == "Hello."

    run(work, "Hm.\n</think>\n\nHello.", reasoning=True, opening="<think>")


def test_models_that_know_the_marks_think() -> None:
    tokenizer = tiny.tokenizer()
    assert not Tokenizer(tokenizer).has_marker(CLOSE)
    tokenizer.add_tokens(["<think>", "</think>"])
    assert Tokenizer(tokenizer).has_marker(CLOSE)
    other = tiny.tokenizer()
    other.chat_template += "{{ content.split('</think>')[-1] }}"
    assert Tokenizer(other).has_marker(CLOSE)


def test_fastchats_token_check() -> None:
    async def work(made: Served) -> None:
        prompts = [
            {"model": "m", "prompt": "x" * 10, "max_tokens": 40},
            {"model": "m", "prompt": "x" * 10, "max_tokens": 41},
            {"model": "m", "prompt": "x" * 60},
        ]
        answer = await made.http.post("/api/v1/token_check", json={"prompts": prompts})
        assert answer.json() == {
            "prompts": [
                {"fits": True, "tokenCount": 10, "contextLength": 50},
                {"fits": False, "tokenCount": 10, "contextLength": 50},
                {"fits": False, "tokenCount": 60, "contextLength": 50},
            ]
        }

    run(work, "Ok", context=50)


@pytest.mark.parametrize(
    ("prompts", "status", "param"),
    [
        (None, 400, "prompts"),
        ([], 400, "prompts"),
        ([{"model": "m"}], 400, "prompts[0].prompt"),
        ([{"model": "m", "prompt": "x", "max_tokens": -1}], 400, "prompts[0].max_tokens"),
        ([{"model": "other", "prompt": "x"}], 404, "model"),
    ],
    ids=str,
)
def test_a_bad_token_check_names_its_parameter(prompts: Any, status: int, param: str) -> None:
    async def work(made: Served) -> None:
        answer = await made.http.post("/api/v1/token_check", json={"prompts": prompts})
        assert answer.status_code == status
        assert answer.json()["error"]["param"] == param

    run(work, "Ok")


def test_the_old_address_of_embeddings_names_the_model() -> None:
    async def work(made: Served) -> None:
        for name, status, words in (("m", 400, "cannot make embeddings"), ("org/other", 404, "org/other")):
            answer = await made.http.post(f"/v1/engines/{name}/embeddings", json={"input": "x"})
            assert answer.status_code == status
            assert words in answer.json()["error"]["message"]

    run(work, "Ok")


CHAT: dict[str, Any] = {"model": "m", "messages": SAID, "max_tokens": 8}


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 8.0, "top_k": 4.0, "seed": 1.0, "n": 1.0},
        {"stop": ""},
        {"stop": ["", "\n\n\n"]},
        {"top_logprobs": 0},
        {"top_logprobs": 0, "logprobs": False},
        {"response_format": {"type": None}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": None}}]},
        {"stream_options": None},
        {"messages": [{"role": "critic", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": "Hi", "name": None, "tool_calls": None}]},
    ],
    ids=str,
)
def test_values_in_the_wild(fields: dict[str, Any]) -> None:
    async def work(made: Served) -> None:
        got = await made.http.post("/v1/chat/completions", json=CHAT | fields)
        assert got.status_code == 200, got.text

    run(work, "Hello.")


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"messages": [{"role": "user", "content": {"type": "text", "text": "x"}}]}, "messages[0].content", "a string or a list of parts"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "a string or a list of parts"),
        ({"messages": [{"role": "user", "content": "x"}, "hello"]}, "messages[1]", "an object"),
        ({"max_tokens": 8.5}, "max_tokens", "8.5"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({"tool_choice": 5}, "tool_choice", "a string or an object"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_values_are_refused_in_words_that_a_client_knows(
    fields: dict[str, Any], param: str, words: str
) -> None:
    async def work(made: Served) -> None:
        got = await made.http.post("/v1/chat/completions", json=CHAT | fields)
        assert got.status_code == 400
        error = got.json()["error"]
        assert error["param"] == param
        assert words in error["message"]
        assert "str" not in error["message"].replace("string", "").replace("stream", "")

    run(work, "Hello.")
