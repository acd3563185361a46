"""Anthropic's client library and Claude Code against the worker's HTTP side, with a model that says what it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx2
import pytest

from tests.unit.anthropic.test_request_translation import RECORDED
from tests.unit.worker.scripted import FAULT, Served, served

HELLO: Any = [{"role": "user", "content": "Hello"}]
TURN: Any = {"name": "turn", "input_schema": {"type": "object", "properties": {"to": {"type": "string"}}}}
CALL = '<tool_call>\n{"name": "turn", "arguments": {"to": "left"}}\n</tool_call>'

Work = Callable[[anthropic.AsyncAnthropic, Served], Awaitable[None]]


def against(work: Work, *texts: str, **options: Any) -> None:
    async def inside() -> None:
        async with served(*texts, **options) as made:
            http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=made.app))
            async with anthropic.AsyncAnthropic(
                base_url="http://worker", api_key="none", max_retries=0, http_client=http
            ) as sdk:
                await work(sdk, made)

    asyncio.run(inside())


def test_whole_and_streamed_messages_say_the_same() -> None:
    async def work(sdk: anthropic.AsyncAnthropic, made: Served) -> None:
        whole = await sdk.messages.create(
            model="m", max_tokens=400, messages=HELLO, system="Be brief.", tools=[TURN]
        )
        async with sdk.messages.stream(
            model="m", max_tokens=400, messages=HELLO, system="Be brief.", tools=[TURN]
        ) as stream:
            streamed = await stream.get_final_message()
        assert [block.type for block in whole.content] == ["thinking", "text", "tool_use"]
        call = whole.content[2]
        assert call.type == "tool_use"
        assert (call.name, call.input, whole.stop_reason) == ("turn", {"to": "left"}, "tool_use")
        plain = [block.to_dict() | {"id": ""} for block in whole.content]
        assert [block.to_dict() | {"id": ""} for block in streamed.content] == plain
        assert streamed.stop_reason == whole.stop_reason
        assert streamed.usage.output_tokens == whole.usage.output_tokens > 0
        assert streamed.usage.input_tokens == whole.usage.input_tokens > 0
        assert made.script.prompts[0] == made.script.prompts[1]
        assert "Be brief." in made.script.prompts[0]

    against(work, f"<think>Hm.</think>I turn.{CALL}", reasoning=True)


def test_the_second_turn_has_what_the_tool_said() -> None:
    async def work(sdk: anthropic.AsyncAnthropic, made: Served) -> None:
        first = await sdk.messages.create(model="m", max_tokens=400, messages=HELLO, tools=[TURN])
        call = first.content[-1]
        assert call.type == "tool_use"
        result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "done", "is_error": False}
        said: Any = [
            *HELLO,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]},
        ]
        second = await sdk.messages.create(model="m", max_tokens=400, messages=said, tools=[TURN])
        assert [block.to_dict() for block in second.content] == [{"type": "text", "text": "Left."}]
        assert "done" in made.script.prompts[1]

    against(work, CALL, "Left.")


def test_thinking_that_was_turned_off_is_not_shown() -> None:
    async def work(sdk: anthropic.AsyncAnthropic, made: Served) -> None:
        for thinking in ({"type": "disabled"}, {"type": "adaptive", "display": "omitted"}):
            options: Any = {"model": "m", "max_tokens": 50, "messages": HELLO, "thinking": thinking}
            whole = await sdk.messages.create(**options)
            async with sdk.messages.stream(**options) as stream:
                streamed = await stream.get_final_message()
            assert [b.type for b in whole.content] == [b.type for b in streamed.content] == ["text"]

    against(work, "<think>Hm.</think>Hi.", reasoning=True)


def test_where_it_ends() -> None:
    async def work(sdk: anthropic.AsyncAnthropic, made: Served) -> None:
        short = await sdk.messages.create(model="m", max_tokens=2, messages=HELLO)
        assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)
        stopped = await sdk.messages.create(model="m", max_tokens=50, messages=HELLO, stop_sequences=["lo"])
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "lo")
        prefilled: Any = [*HELLO, {"role": "assistant", "content": "I say: "}]
        await sdk.messages.create(model="m", max_tokens=50, messages=prefilled)
        assert made.script.prompts[-1].endswith("I say: ")

    against(work, "Hello there")


def test_a_limit_beyond_the_context_is_a_limit_all_the_same() -> None:
    async def work(sdk: anthropic.AsyncAnthropic, made: Served) -> None:
        found = await sdk.messages.create(model="m", max_tokens=20_000, messages=HELLO)
        assert found.stop_reason == "end_turn"
        long: Any = [{"role": "user", "content": "x" * 5000}]
        with pytest.raises(
            anthropic.BadRequestError, match="prompt is too long: This model's maximum context"
        ):
            await sdk.messages.create(model="m", max_tokens=20_000, messages=long)

    against(work, "Hi.")


def test_tokens_are_counted_as_they_are_used() -> None:
    async def work(sdk: anthropic.AsyncAnthropic, made: Served) -> None:
        used = await sdk.messages.create(
            model="m", max_tokens=9, messages=HELLO, system="Be brief.", tools=[TURN]
        )
        counted = await sdk.messages.count_tokens(model="m", messages=HELLO, system="Be brief.", tools=[TURN])
        assert counted.input_tokens == used.usage.input_tokens
        long: Any = [{"role": "user", "content": "x" * 5000}]
        assert (await sdk.messages.count_tokens(model="m", messages=long)).input_tokens > 4000

    against(work, "Hi.")


def test_two_turns_of_claude_code() -> None:
    async def work(sdk: anthropic.AsyncAnthropic, made: Served) -> None:
        for turn, reason in (("first", "tool_use"), ("second", "end_turn")):
            recorded = RECORDED[turn]
            body = recorded["body"] | {"model": "m"}
            answer = await made.http.post(recorded["path"], json=body, headers=recorded["headers"])
            assert answer.status_code == 200
            events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
            assert events[0]["message"]["usage"]["input_tokens"] > 0
            assert events[-2]["delta"]["stop_reason"] == reason
        assert "marker-42" in made.script.prompts[1]
        assert "x-anthropic-billing-header" not in made.script.prompts[0]

    against(work, CALL.replace('"turn"', '"Bash"').replace('"to"', '"command"'), "Done.")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": []}, "messages must be a list of at least one"), ({}, "messages"),
        ({"messages": HELLO, "max_tokens": "x"}, "max_tokens"), ({"messages": HELLO, "temperature": 9}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "cannot read images"),
        ({"messages": HELLO, "tools": [{"name": "f", "input_schema": 3}]}, r"tools[0].input_schema"),
        ({"messages": HELLO, "thinking": {"type": "maybe"}}, "thinking.type"),
    ],
)  # fmt: skip
def test_refusals(body: dict[str, Any], words: str) -> None:
    async def work(sdk: anthropic.AsyncAnthropic, made: Served) -> None:
        for path in ("/v1/messages", "/v1/messages/count_tokens"):
            answer = await made.http.post(path, json={"model": "m", "max_tokens": 5} | body)
            found = answer.json()
            assert (answer.status_code, found["type"], found["error"]["type"]) == (
                400, "error", "invalid_request_error",
            )  # fmt: skip
            assert words in found["error"]["message"]

    against(work, "Hi.")


def test_errors_are_the_clients_own() -> None:
    async def work(sdk: anthropic.AsyncAnthropic, made: Served) -> None:
        with pytest.raises(anthropic.NotFoundError) as missing:
            await sdk.messages.create(model="nope", max_tokens=9, messages=HELLO)
        assert isinstance(missing.value.body, dict)
        assert missing.value.body["error"]["type"] == "not_found_error"
        with pytest.raises(anthropic.InternalServerError, match="the engine failed"):
            await sdk.messages.create(model="m", max_tokens=9, messages=HELLO)
        with pytest.raises(anthropic.APIStatusError, match="the engine failed"):
            async for _ in await sdk.messages.create(model="m", max_tokens=9, messages=HELLO, stream=True):
                pass
        for method, path, status in (("GET", "/v1/messages", 405), ("POST", "/v1/messages/batches", 404)):
            answer = await made.http.request(method, path, json={})
            assert (answer.status_code, answer.json()["type"]) == (status, "error")

    against(work, f"Hi{FAULT}")
