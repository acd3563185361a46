"""Requests of real clients, and what the model reads of them."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.worker.chat_template.samples import TEMPLATES, WEATHER
from tests.unit.worker.scripted import served


def ask(template: str, *bodies: tuple[str, dict[str, Any]], answer: str = "Ok") -> list[str]:
    """The prompts that come of requests to a model with ``template``; all must succeed."""

    async def inside() -> list[str]:
        async with served(answer, template=TEMPLATES[template].read_text()) as made:
            for path, body in bodies:
                answered = await made.http.post(path, json={"model": "m"} | body)
                assert answered.status_code == 200, answered.text
            return made.script.prompts

    return asyncio.run(inside())


def test_codex_sends_two_developer_messages() -> None:
    def item(role: str, text: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}

    said = [item("developer", "<permissions>"), item("user", "Say hi")]
    (prompt,) = ask(
        "system_at_the_beginning",
        ("/v1/responses", {"instructions": "You are a coding agent.", "input": said}),
    )
    assert prompt.startswith("<|im_start|>system\nYou are a coding agent.\n\n<permissions><|im_end|>\n")


def test_tools_for_a_model_without_a_system_role() -> None:
    body = {"messages": [{"role": "user", "content": "s"}], "tools": [WEATHER]}
    (prompt,) = ask("no_system_alternating", ("/v1/chat/completions", body))
    assert prompt.startswith("<|im_start|>user\nYou may call functions")
    assert prompt.endswith("\n\ns<|im_end|>\n<|im_start|>assistant\n")


def test_the_second_turn_with_a_call_of_another_server() -> None:
    call = {
        "id": "call-5f3a7a56d843c914dc2f9f10",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
    }
    said = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": [{"type": "text", "text": "sunny"}]},
    ]
    body = {"messages": said, "tools": [WEATHER]}
    (prompt,) = ask("mistral_v0_3", ("/v1/chat/completions", body))
    assert '[TOOL_RESULTS] {"content": "sunny"' in prompt
    assert "call-5f" not in prompt


def test_token_counts_are_of_the_same_form() -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]

    async def inside() -> int:
        async with served("Ok", template=TEMPLATES["gemma_2"].read_text()) as made:
            counted = await made.http.post("/tokenize", json={"model": "m", "messages": messages})
            answered = await made.http.post("/v1/chat/completions", json={"model": "m", "messages": messages})
            assert answered.json()["usage"]["prompt_tokens"] == counted.json()["count"]
            return int(counted.status_code)

    assert asyncio.run(inside()) == 200
