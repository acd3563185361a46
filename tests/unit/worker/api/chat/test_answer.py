"""Answers to clients that still write functions and function_call."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.unit.worker.scripted import served

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
ASK = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "functions": [FUNCTION]}


def ask(*texts: str, **fields: Any) -> list[Any]:
    async def inside() -> list[Any]:
        async with served(*texts) as made:
            got = await made.http.post("/v1/chat/completions", json=ASK | fields)
            assert got.status_code == 200, got.text
            if fields.get("stream"):
                return [json.loads(line[6:]) for line in got.text.splitlines() if line.startswith("data: {")]
            return [got.json()]

    return asyncio.run(inside())


def test_a_call_is_in_the_field_that_they_know() -> None:
    [choice] = ask(CALL)[0]["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "weather", "arguments": '{"city": "Paris"}'}
    assert choice["message"]["content"] is None
    assert "tool_calls" not in choice["message"]


def test_a_streamed_call_is_as_well() -> None:
    choices = [event["choices"][0] for event in ask(CALL, stream=True)]
    calls = [choice["delta"]["function_call"] for choice in choices if "function_call" in choice["delta"]]
    assert "".join(call.get("name", "") for call in calls) == "weather"
    assert json.loads("".join(call["arguments"] for call in calls)) == {"city": "Paris"}
    assert choices[-1]["finish_reason"] == "function_call"
    assert not any("tool_calls" in choice["delta"] for choice in choices)


def test_their_history_is_understood() -> None:
    history = [
        *ASK["messages"],
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
        {"role": "function", "name": "weather", "content": "18"},
    ]
    [choice] = ask("It is warm.", messages=history)[0]["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("It is warm.", "stop")
