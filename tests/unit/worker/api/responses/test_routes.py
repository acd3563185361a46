"""Whole conversations of real clients, as they were recorded (tests/support/clients/conversations), replayed whole and streamed.

To record one again: serve a scripted model (``tests.unit.worker.scripted``) with uvicorn, point the client to it, and write down
the bodies. Ids that an answer gave are written ``{2.output.0.id}``: the path to the id in the second answer.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.support import clients
from tests.unit.worker.scripted import Served, served

RECORDED = Path(clients.__file__).with_name("conversations")
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
REFERENCE = re.compile(r"\{(\d+)\.([^}]+)\}")


def conversation(name: str) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return recorded


def filled(value: Any, answers: list[dict[str, Any]]) -> Any:
    """``value`` with the ids of ``answers`` where it refers to them."""
    if isinstance(value, dict):
        return {key: filled(field, answers) for key, field in value.items()}
    if isinstance(value, list):
        return [filled(field, answers) for field in value]
    found = REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    at: Any = answers[int(found[1]) - 1]
    for step in found[2].split("."):
        at = at[int(step)] if step.isdigit() else at[step]
    return at


async def answer(made: Served, body: dict[str, Any]) -> dict[str, Any]:
    """The response to ``body``, and all events that lead to it, checked against the types of OpenAI's client."""
    reply = await made.http.post("/v1/responses", json=body)
    assert reply.status_code == 200, reply.text
    if not body.get("stream"):
        whole: dict[str, Any] = reply.json()
    else:
        events = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: ")]
        for number, event in enumerate(events):
            assert event["sequence_number"] == number
            EVENT.validate_python(event)
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        assert events[-1]["type"] == "response.completed"
        whole = events[-1]["response"]
        assert done == whole["output"]
    Response.model_validate(whole)
    return whole


def replay(name: str, stream: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """The answers to the recorded requests, and what the model was given each time."""
    recorded = conversation(name)

    async def work() -> tuple[list[dict[str, Any]], list[str]]:
        texts = recorded["answers"]
        async with served(*texts, reasoning="<think>" in texts[0], context=100_000) as made:
            answers: list[dict[str, Any]] = []
            for request in recorded["requests"]:
                answers.append(await answer(made, filled(request, answers) | {"stream": stream}))
            return answers, made.script.prompts

    return asyncio.run(work())


SDK = "Be kind.", "Rome?", ["weather"], "sunny in Rome", ["It is sunny.", "More then."]
CODEX = "Rules.\n\nRules.Rules.", "Run echo hi", ["exec_command"], "exit code 0\nhi\n", ["It said hi."]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [("codex", CODEX), ("ai-sdk", SDK), ("openai-agents", SDK)],
    ids=lambda value: str(value)[:13],
)
def test_a_conversation_of_a_real_client(name: str, expected: Any, stream: bool) -> None:
    system, asked, tools, result, said = expected
    answers, prompts = replay(name, stream)
    calls = [item["name"] for item in answers[0]["output"] if item["type"] == "function_call"]
    texts = [item["content"][0]["text"] for item in answers[0]["output"] if item["type"] == "message"]
    assert calls == tools
    for got, text in zip(answers[1:], said, strict=True):
        assert [item["type"] for item in got["output"]][-1] == "message"
        assert got["output"][-1]["content"][0]["text"] == text
    for prompt in prompts:
        assert "\ns:" not in prompt
        assert prompt.startswith(f"s:{system}\n")
    # The last request has the conversation in its order, whether its items were sent, referred to or remembered.
    parts = [asked, *texts, f'{{"name": "{tools[0]}"', result, *said[:-1]]
    places = [prompts[-1].index(part, prompts[-1].index(f"u:{asked}")) for part in parts]
    assert places == sorted(places)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECORDED.glob("*.json")))
def test_a_stream_leads_to_the_same_prompts_as_a_whole_answer(name: str) -> None:
    assert replay(name, stream=True)[1] == replay(name, stream=False)[1]
