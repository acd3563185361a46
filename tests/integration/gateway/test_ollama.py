"""Ollama's API at the gateway, asked by the ``ollama`` package. The replicas are fakes that know OpenAI's API alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.integration.gateway.fakes import HOST, Bench, Client, Seen, Talk, ask, running

KEY = {"Authorization": "Bearer sk-all"}
HELLO: Any = [{"role": "user", "content": "Hello"}]
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    keys = tmp_path_factory.mktemp("ollama") / "keys.txt"
    Path(keys).write_text("all: sk-all\nfew: sk-few models=embedder\n")
    with running("--ollama", "--api-keys-file", str(keys)) as bench:
        yield bench


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    yield shared
    shared.clear()


@pytest.fixture
def client(bench: Bench) -> Iterator[ollama.Client]:
    made = ollama.Client(bench.gateway.url, headers=KEY, trust_env=False, timeout=10)
    with contextlib.closing(made):
        yield made


def says(talk: Talk, seen: Seen, *deltas: dict[str, Any], finish: str = "stop") -> None:
    """Answer a chat with ``deltas``, as a stream or as a whole."""
    asked = seen.json
    if not asked.get("stream"):
        message: dict[str, Any] = {"role": "assistant", "content": None}
        for delta in deltas:
            for key, value in delta.items():
                message[key] = value if key == "tool_calls" else (message.get(key) or "") + value
        choice = {"index": 0, "message": message, "finish_reason": finish}
        talk.reply(
            {"object": "chat.completion", "model": asked["model"], "choices": [choice], "usage": USAGE}
        )
        return
    talk.start_stream()
    for delta in ({"role": "assistant", "content": ""}, *deltas):
        talk.event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    talk.event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    talk.event({"choices": [], "usage": USAGE})
    talk.end_stream()


def greets(talk: Talk, seen: Seen) -> None:
    says(talk, seen, {"reasoning_content": "A greeting."}, {"content": "Hel"}, {"content": "lo"})


def embeds(talk: Talk, seen: Seen) -> None:
    rows = [{"index": at, "embedding": [3.0, 4.0]} for at, _ in enumerate(seen.json["input"])]
    talk.reply({"object": "list", "data": rows, "usage": {"prompt_tokens": 5, "total_tokens": 5}})


def test_a_chat_streamed_and_whole(bench: Bench, client: ollama.Client) -> None:
    worker = bench.worker(greets)
    bench.serve(worker.replica("tiny"))
    options = {"num_predict": 9, "temperature": 0.5, "num_ctx": 512, "repeat_penalty": 1.1, "stop": ["x"]}
    parts = list(client.chat("tiny:latest", HELLO, stream=True, options=options, think=True))
    assert [part.message.content for part in parts] == ["", "Hel", "lo", ""]
    assert parts[0].message.thinking == "A greeting."
    assert [part.done for part in parts] == [None or False, False, False, True]
    last = parts[-1]
    assert (last.done_reason, last.prompt_eval_count, last.eval_count) == ("stop", 7, 3)
    assert last.total_duration is not None
    assert last.total_duration >= (last.prompt_eval_duration or 0) > 0
    asked = worker.seen[-1].json
    assert (asked["model"], asked["messages"], asked["stream"]) == ("tiny", HELLO, True)
    assert (asked["max_tokens"], asked["temperature"], asked["stop"]) == (9, 0.5, ["x"])
    assert (asked["repetition_penalty"], asked["chat_template_kwargs"]["enable_thinking"]) == (1.1, True)
    assert "options" not in asked
    assert "num_ctx" not in asked

    whole = client.chat("tiny", HELLO)
    assert (whole.message.content, whole.message.thinking, whole.done) == ("Hello", "A greeting.", True)
    assert (whole.model, whole.done_reason, whole.eval_count) == ("tiny", "stop", 3)
    assert "stream" not in worker.seen[-1].json


def get_weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return f"Sunny in {city}"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_tools_over_two_turns(bench: Bench, client: ollama.Client, stream: bool) -> None:
    def uses_tools(talk: Talk, seen: Seen) -> None:
        if seen.json["messages"][-1]["role"] == "tool":
            says(talk, seen, {"content": seen.json["messages"][-1]["content"]})
        else:
            calls = [
                {"index": at, "id": f"id{at}", "type": "function",
                 "function": {"name": "get_weather", "arguments": json.dumps({"city": city})}}
                for at, city in enumerate(["Oslo", "Rome"])
            ]  # fmt: skip
            says(talk, seen, {"tool_calls": calls}, finish="tool_calls")

    worker = bench.worker(uses_tools)
    bench.serve(worker.replica("tiny"))

    def turn(messages: list[Any]) -> list[ollama.Message]:
        if stream:
            parts = client.chat("tiny", messages, tools=[get_weather], stream=True)
            return [part.message for part in parts if part.message.content or part.message.tool_calls]
        return [client.chat("tiny", messages, tools=[get_weather]).message]

    said = turn(HELLO)
    calls = [call.function for message in said for call in message.tool_calls or ()]
    assert [(call.name, call.arguments) for call in calls] == [
        ("get_weather", {"city": "Oslo"}),
        ("get_weather", {"city": "Rome"}),
    ]
    tool = worker.seen[-1].json["tools"][0]
    assert (tool["type"], tool["function"]["name"]) == ("function", "get_weather")
    assert tool["function"]["parameters"]["properties"]["city"]["type"] == "string"

    results = [
        {"role": "tool", "tool_name": call.name, "content": get_weather(**call.arguments)} for call in calls
    ]
    assert turn([*HELLO, *said, *results])[0].content == "Sunny in Rome"
    sent = worker.seen[-1].json["messages"]
    made = [call for message in sent[1:-2] for call in message["tool_calls"]]
    assert json.loads(made[0]["function"]["arguments"]) == {"city": "Oslo"}
    # This client drops the ids, so the results are matched by the tool's name and their order.
    assert [message["tool_call_id"] for message in sent[-2:]] == [call["id"] for call in made]
    assert len({call["id"] for call in made}) == 2


def test_generate(bench: Bench, client: ollama.Client) -> None:
    worker = bench.worker(greets)
    bench.serve(worker.replica("tiny"))
    parts = list(client.generate("tiny", "Hello", system="Be brief.", stream=True))
    assert "".join(part.response or "" for part in parts) == "Hello"
    assert (parts[0].thinking, parts[-1].done_reason) == ("A greeting.", "stop")
    said = worker.seen[-1].json["messages"]
    assert [(message["role"], message["content"]) for message in said] == [
        ("system", "Be brief."),
        ("user", "Hello"),
    ]
    assert client.generate("tiny", "Hello").response == "Hello"

    def completes(talk: Talk, seen: Seen) -> None:
        choice = {"index": 0, "text": " world", "finish_reason": "length"}
        talk.reply({"object": "text_completion", "choices": [choice], "usage": USAGE})

    worker.behave = completes
    raw = client.generate("tiny", "Hello", raw=True, suffix="!", options={"num_predict": 2})
    assert (raw.response, raw.done_reason) == (" world", "length")
    assert worker.seen[-1].path == "/v1/completions"
    asked = worker.seen[-1].json
    assert (asked["prompt"], asked["suffix"], asked["max_tokens"]) == ("Hello", "!", 2)
    asked_before = len(worker.seen)
    assert client.generate("tiny", "", keep_alive=-1).done_reason == "load"
    assert client.chat("tiny").done_reason == "load"
    assert len(worker.seen) == asked_before


def test_a_format_becomes_a_response_format(bench: Bench, client: ollama.Client) -> None:
    worker = bench.worker(greets)
    bench.serve(worker.replica("tiny"))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    client.chat("tiny", HELLO, format=schema)
    wanted = worker.seen[-1].json["response_format"]
    assert (wanted["type"], wanted["json_schema"]["schema"]) == ("json_schema", schema)
    client.generate("tiny", "Hello", format="json")
    assert worker.seen[-1].json["response_format"] == {"type": "json_object"}


def test_embeddings_new_and_old(bench: Bench, client: ollama.Client) -> None:
    worker = bench.worker(embeds)
    bench.serve(worker.replica("embedder", kind="embed"))
    found = client.embed("embedder", ["one", "two"], dimensions=2)
    assert [list(vector) for vector in found.embeddings] == [[0.6, 0.8], [0.6, 0.8]]
    assert (found.prompt_eval_count, found.model) == (5, "embedder")
    assert worker.seen[-1].path == "/v1/embeddings"
    assert worker.seen[-1].json["dimensions"] == 2
    assert list(client.embeddings("embedder", "one").embedding) == [3, 4]
    asked_before = len(worker.seen)
    assert list(client.embed("embedder", "").embeddings) == []
    assert len(worker.seen) == asked_before


def test_models_are_listed_and_shown(bench: Bench, client: ollama.Client) -> None:
    bench.serve(
        bench.worker().replica("tiny", kind="generate", max_model_len=2048),
        bench.worker().replica("embedder", kind="embed"),
    )
    assert [model.model for model in client.list().models] == ["embedder", "tiny"]
    digest = client.list().models[0].digest
    assert digest is not None
    assert len(digest) == 64
    assert [model.name for model in client.ps().models] == ["embedder", "tiny"]
    shown = client.show("tiny:latest")
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo is not None
    assert shown.modelinfo[f"{shown.modelinfo['general.architecture']}.context_length"] == 2048
    assert [model.context_length for model in client.ps().models] == [None, 2048]
    assert client.show("embedder").capabilities == ["embedding"]
    few = ollama.Client(bench.gateway.url, headers={"Authorization": "Bearer sk-few"}, trust_env=False)
    with contextlib.closing(few):
        assert [model.model for model in few.list().models] == ["embedder"]
        with pytest.raises(ollama.ResponseError, match="may not use the model `tiny`") as refused:
            few.show("tiny")
    assert refused.value.status_code == 403


def test_a_pull_of_a_served_model_succeeds_and_nothing_can_be_changed(
    bench: Bench, client: ollama.Client
) -> None:
    bench.serve(bench.worker().replica("tiny"))
    assert client.pull("tiny").status == "success"
    assert [part.status for part in client.pull("tiny:latest", stream=True)][-1] == "success"
    with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as unknown:
        client.pull("nobody")
    assert unknown.value.status_code == 404
    changes: list[Callable[[], object]] = [
        lambda: client.create("new", from_="tiny"),
        lambda: client.copy("tiny", "new"),
        lambda: client.delete("tiny"),
        lambda: client.push("tiny"),
    ]
    for change in changes:
        with pytest.raises(ollama.ResponseError, match="manifest"):
            change()


def test_errors_have_ollamas_form(bench: Bench, client: ollama.Client) -> None:
    def refuses(talk: Talk, seen: Seen) -> None:
        error = {"message": "This model takes no images.", "type": "invalid_request_error"}
        talk.reply({"error": error}, status=400)

    worker = bench.worker(refuses)
    bench.serve(worker.replica("tiny"), expected=["promised"])
    for model, status, text in (
        ("nobody", 404, "model 'nobody' not found"),
        ("promised:latest", 503, "not ready"),
        ("tiny", 400, "takes no images"),
    ):
        for stream in (True, False):
            with pytest.raises(ollama.ResponseError, match=text) as refused:
                list(
                    client.chat(
                        model, [{"role": "user", "content": "x", "images": ["iVBORw0KGgo="]}], stream=stream
                    )
                )
            assert refused.value.status_code == status
    sent = worker.seen[-1].json["messages"][0]["content"]
    assert sent[1]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="
    with pytest.raises(ollama.ResponseError, match="template cannot be set"):
        client.generate("tiny", "x", template="{{ .Prompt }}")
    with (
        contextlib.closing(ollama.Client(bench.gateway.url, trust_env=False)) as stranger,
        pytest.raises(ollama.ResponseError) as refused,
    ):
        stranger.list()
    assert refused.value.status_code == 401


def test_a_stream_that_breaks_ends_with_an_error(bench: Bench, client: ollama.Client) -> None:
    def breaks(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        talk.event({"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]})
        talk.hang_up()

    bench.serve(bench.worker(breaks).replica("tiny"))
    parts = client.chat("tiny", HELLO, stream=True)
    assert next(parts).message.content == "Hel"
    with pytest.raises(ollama.ResponseError, match="interrupted"):
        next(parts)


def test_an_answer_that_is_none_is_a_502(bench: Bench, client: ollama.Client) -> None:
    bench.serve(bench.worker(lambda talk, seen: talk.reply({"choices": []})).replica("tiny"))
    with pytest.raises(ollama.ResponseError) as refused:
        client.chat("tiny", HELLO)
    assert refused.value.status_code == 502


def test_the_root_and_the_version_need_no_model(bench: Bench) -> None:
    assert ask(bench.port, "GET", "/").body == b"Ollama is running"
    with Client(bench.port) as raw:
        raw.send(f"HEAD / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        assert raw.answer("HEAD").status == 200
    # A base URL that ends with a slash makes two of them.
    version = ask(bench.port, "GET", "//api/version", headers=KEY).json["version"]
    assert [int(part) for part in version.split(".")] >= [0, 6, 4]  # what editors ask for


def test_a_stream_is_lines_of_json(bench: Bench) -> None:
    bench.serve(bench.worker(greets).replica("tiny"))
    answer = ask(bench.port, "POST", "/api/chat", {"model": "tiny", "messages": HELLO}, headers=KEY)
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert [line["done"] for line in lines] == [False, False, False, True]
    assert lines[-1]["message"] == {"role": "assistant", "content": ""}
    assert all(line["created_at"].endswith("Z") for line in lines)


def test_tokens_are_counted(bench: Bench, client: ollama.Client) -> None:
    bench.serve(bench.worker(greets).replica("counted"))
    list(client.chat("counted", HELLO, stream=True))
    client.chat("counted", HELLO)
    assert bench.metric("prompt_tokens_total", model="counted") == 14
    assert bench.metric("completion_tokens_total", model="counted") == 6


def test_without_the_option_there_is_none_of_it(shared_bench: Bench) -> None:
    for method, path in (("GET", "/"), ("GET", "/api/tags"), ("POST", "/api/chat")):
        answer = ask(shared_bench.port, method, path, {} if method == "POST" else None)
        assert (answer.status, answer.error["code"]) == (404, "unknown_url")
        assert ("ollama: true" in answer.error["message"]) is (path != "/")
