"""Fields of OpenAI's chat API, old and new, as they come through HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmlaunch.worker.api.generation.respond import WARNING_HEADER
from tests.unit.worker.scripted import Served, served

SAID: Any = [{"role": "user", "content": "x"}]
ADD = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
FORCED = '[{"name": "add", "arguments": {"a": 1}}]'


def run(work: Callable[[Served], Awaitable[Any]], *texts: str) -> Any:
    async def inside() -> Any:
        async with served(*texts) as made:
            return await work(made)

    return asyncio.run(inside())


def post(body: dict[str, Any], text: str = "Ok", path: str = "/v1/chat/completions") -> Any:
    async def work(made: Served) -> Any:
        said = {} if path == "/v1/completions" else {"messages": SAID}
        return await made.http.post(path, json={"model": "m"} | said | body)

    return run(work, text)


@pytest.mark.parametrize(
    ("choice", "text"), [(None, CALL), ("auto", CALL), ({"name": "add"}, FORCED)], ids=str
)
def test_functions_are_answered_with_a_function_call(choice: Any, text: str) -> None:
    async def work(made: Served) -> None:
        body: dict[str, Any] = {"model": "m", "messages": SAID, "functions": [ADD], "function_call": choice}
        answer = (await made.http.post("/v1/chat/completions", json=body)).json()["choices"][0]
        call = {"name": "add", "arguments": '{"a": 1}'}
        assert answer["finish_reason"] == "function_call"
        assert answer["message"]["function_call"] == call
        assert answer["message"]["content"] is None
        assert "tool_calls" not in answer["message"]
        streamed = (await made.http.post("/v1/chat/completions", json=body | {"stream": True})).text
        lines = [line[6:] for line in streamed.splitlines() if line.startswith("data: {")]
        choices = [json.loads(line)["choices"][0] for line in lines]
        parts = [part["delta"].get("function_call") or {} for part in choices]
        assert [part["name"] for part in parts if "name" in part] == ["add"]
        assert "".join(part.get("arguments", "") for part in parts) == call["arguments"]
        assert choices[-1]["finish_reason"] == "function_call"
        # The second turn: the call and its result, in the old fields.
        history = [*SAID, answer["message"], {"role": "function", "name": "add", "content": "3"}]
        again = await made.http.post("/v1/chat/completions", json=body | {"messages": history})
        assert again.status_code == 200
        assert '"a": 1' in made.script.prompts[-1]
        assert "3" in made.script.prompts[-1]

    run(work, text)


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize("nested", [True, False])
def test_only_allowed_tools_are_offered(nested: bool) -> None:
    async def work(made: Served) -> None:
        allowed: dict[str, Any] = {
            "mode": "auto",
            "tools": [tool("one") if nested else {"type": "function", "name": "one"}],
        }
        choice = {"type": "allowed_tools"} | ({"allowed_tools": allowed} if nested else allowed)
        body = {"model": "m", "messages": SAID, "tools": [tool("one"), tool("two")], "tool_choice": choice}
        assert (await made.http.post("/v1/chat/completions", json=body)).status_code == 200
        assert '"one"' in made.script.prompts[0]
        assert '"two"' not in made.script.prompts[0]

    run(work, "Ok")


@pytest.mark.parametrize(
    "body",
    [
        {"logprobs": False, "top_logprobs": 0},
        {"top_logprobs": 0},
        {"stop": ""},
        {"stop": ["", "z"]},
        {"max_tokens": 4.0, "n": 1.0, "seed": 5.0, "top_k": 3.0},
        {"response_format": {"type": None}},
        {"response_format": None, "stream_options": None, "tool_choice": None, "functions": None},
        {"stream": True, "stream_options": {"include_usage": None}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": None, "strict": None}}]},
        {"tools": [], "functions": [], "function_call": "auto"},
        {
            "messages": [
                {"role": "user", "content": "x", "name": None, "tool_calls": None, "function_call": None}
            ]
        },
        {"messages": [{"role": "critic", "content": "x"}, *SAID]},
    ],
    ids=str,
)
def test_what_clients_send_for_nothing_is_taken(body: dict[str, Any]) -> None:
    assert post(body).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": False, "stream_options": {}}, "stream_options"),
        ({"function_call": {"name": "add"}}, "function_call"),
        ({"functions": [ADD], "function_call": {"name": "sub"}}, "function_call"),
        ({"functions": [ADD], "function_call": "required"}, "function_call"),
        ({"functions": [ADD], "tools": [tool("f")]}, "functions"),
        ({"functions": [{"name": ""}]}, "functions"),
        ({"tools": [tool("f")], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        (
            {"tools": [tool("f")], "tool_choice": {"type": "allowed_tools", "tools": [tool("g")]}},
            "tool_choice",
        ),
        (
            {
                "tools": [tool("f")],
                "tool_choice": {"type": "allowed_tools", "mode": "some", "tools": [tool("f")]},
            },
            "tool_choice",
        ),
        ({"messages": [*SAID, {"role": "assistant", "function_call": "f"}]}, "messages[1].function_call"),
    ],
    ids=str,
)
def test_what_cannot_be_obeyed_is_refused(body: dict[str, Any], param: str) -> None:
    answer = post(body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_completions_always_have_the_chosen_token_among_the_likeliest() -> None:
    answer = post({"prompt": "x", "logprobs": 0}, "abc", "/v1/completions").json()["choices"][0]["logprobs"]
    assert answer["tokens"][:3] == ["a", "b", "c"]
    tops = [{token: value} for token, value in zip(answer["tokens"], answer["token_logprobs"], strict=True)]
    assert answer["top_logprobs"] == tops
    refused = post({"prompt": "x", "stream_options": {"include_usage": True}}, path="/v1/completions")
    assert refused.json()["error"]["param"] == "stream_options"


@pytest.mark.parametrize("stream", [False, True])
def test_a_header_names_what_is_not_enforced(stream: bool) -> None:
    odd = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^(?!é).*$", "format": "x\r\ny"}},
    }
    functions = [{"type": "function", "function": {"name": "f", "parameters": odd}}]
    answer = post(
        {"tools": functions, "tool_choice": "required", "stream": stream}, '[{"name": "f", "arguments": {}}]'
    )
    assert answer.headers[WARNING_HEADER].startswith("tools: function 'f': ignored pattern '^(?!?).*$'")
    strict = [{"type": "function", "function": {"name": "f", "parameters": odd, "strict": True}}]
    assert (
        "function 'f': strict"
        in post({"tools": strict, "tool_choice": "required"}).json()["error"]["message"]
    )
    plain = post({"response_format": {"type": "json_object"}, "stream": stream}, "{}")
    assert WARNING_HEADER not in plain.headers


def test_fields_of_openais_that_mean_nothing_here_change_nothing() -> None:
    """docs/reference/worker.md lists them."""
    idle: dict[str, Any] = {
        "store": True, "metadata": {"a": "b"}, "service_tier": "flex", "prompt_cache_key": "k",
        "prompt_cache_options": {"mode": "explicit"}, "prompt_cache_retention": "24h", "safety_identifier": "s",
        "moderation": {"model": "omni-moderation-latest"}, "verbosity": "low",
        "prediction": {"type": "content", "content": "Ok"}, "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"}, "web_search_options": {},
    }  # fmt: skip

    async def work(made: Served) -> None:
        for fields in ({}, idle, dict.fromkeys(idle)):
            body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | fields
            answer = (await made.http.post("/v1/chat/completions", json=body)).json()
            assert answer["choices"][0]["message"]["content"] == "Ok"
        assert len(set(made.script.prompts)) == 1

    run(work, "Ok", "Ok", "Ok")
