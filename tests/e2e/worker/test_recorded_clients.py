"""What the libraries of agents sent in a conversation with a tool, answered as they expect, whole and streamed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.e2e.worker.server import Worker
from tests.support.clients import recordings
from tests.support.clients.recordings import Turn

TURNS = recordings.turns()


def answer(worker: Worker, body: dict[str, Any], path: str) -> dict[str, Any]:
    """The message, or the response's items by type; put together from events if the request asks for a stream."""
    with worker.client() as client:
        got = client.post(path, json=body)
    assert got.status_code == 200, got.text
    if not body.get("stream"):
        return dict(got.json())
    events = [json.loads(line[6:]) for line in got.text.splitlines() if line.startswith("data: {")]
    if path.endswith("/responses"):
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        return dict(events[-1]["response"])
    message: dict[str, Any] = {"content": "", "tool_calls": []}
    finish = None
    for event in events:
        for choice in event["choices"]:
            delta = choice["delta"]
            message["content"] += delta.get("content") or ""
            for part in delta.get("tool_calls") or ():
                if part["index"] == len(message["tool_calls"]):
                    message["tool_calls"].append(part)
                else:
                    function = message["tool_calls"][part["index"]]["function"]
                    function["arguments"] += part["function"]["arguments"]
            finish = choice["finish_reason"] or finish
    return {"choices": [{"message": message, "finish_reason": finish}]}


def text_and_calls(got: dict[str, Any]) -> tuple[str, list[tuple[str, Any]]]:
    if "output" in got:
        items = got["output"]
        text = "".join(p["text"] for item in items if item["type"] == "message" for p in item["content"])
        calls = [(i["name"], json.loads(i["arguments"])) for i in items if i["type"] == "function_call"]
        return text, calls
    message = got["choices"][0]["message"]
    found = [call["function"] for call in message.get("tool_calls") or ()]
    return message["content"] or "", [(call["name"], json.loads(call["arguments"])) for call in found]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("turn", [turn for turn in TURNS if turn.says], ids=lambda turn: turn.client)
def test_a_turn_of_a_conversation_with_a_tool(writer: Worker, turn: Turn, streamed: bool) -> None:
    body = turn.body | {"guided_choice": [turn.says], "stream": streamed}
    if not streamed:
        body.pop("stream_options", None)
    text, calls = text_and_calls(answer(writer, body, turn.path))
    if "<tool_call>" in str(turn.says):
        assert (text.strip(), calls) == ("", [("get_weather", {"city": "Paris"})])
    else:
        assert (text, calls) == (turn.says, [])


@pytest.mark.parametrize("turn", [turn for turn in TURNS if not turn.says], ids=lambda turn: turn.client)
def test_a_form_that_a_client_asks_for_is_kept_to(writer: Worker, turn: Turn) -> None:
    body = turn.body | {"max_tokens": 400, "seed": 1}
    text, calls = text_and_calls(answer(writer, body, turn.path))
    form = body.get("response_format")
    if form is not None:
        assert calls == []
        jsonschema.validate(json.loads(text), form["json_schema"]["schema"])
        return
    [(name, arguments)] = calls
    [tool] = [tool["function"] for tool in body["tools"] if tool["function"]["name"] == name]
    jsonschema.validate(arguments, tool["parameters"])


@pytest.mark.slow
def test_the_programs_themselves(writer: Worker) -> None:
    """CLIENTS is the Python of an environment that has the libraries: ``tests/support/clients/programs.py`` says how to make it."""
    clients = os.environ.get("CLIENTS")
    if not clients:
        pytest.skip("CLIENTS is not set")
    programs = Path(recordings.__file__).with_name("programs.py")
    ran = subprocess.run(
        [clients, str(programs), f"{writer.url}/v1", "tiny"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
