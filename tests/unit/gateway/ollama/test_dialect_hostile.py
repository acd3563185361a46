"""Whatever clients and replicas send: a translation, or the one error that says why there is none."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.ollama.dialect import OllamaEmbedding, OllamaGeneration
from llmlaunch.gateway.ollama.timing import Clocks
from llmlaunch.gateway.payload.model_field import InvalidBody

CLOCKS = Clocks(lambda: 0.0, lambda: 0.0)
DIALECTS: list[OllamaGeneration | OllamaEmbedding] = [
    OllamaGeneration(CLOCKS, chat=True),
    OllamaGeneration(CLOCKS, chat=False),
    OllamaEmbedding(CLOCKS, many=True),
    OllamaEmbedding(CLOCKS, many=False),
]
ASKED = b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x"}'
WORDS = [
    "model", "messages", "role", "tool", "content", "images", "tool_calls", "tool_name", "function", "name", "arguments",
    "options", "stop", "seed", "num_predict", "format", "json", "think", "tools", "prompt", "suffix", "raw", "input", "stream",
    "choices", "message", "delta", "index", "finish_reason", "usage", "prompt_tokens", "completion_tokens", "data", "embedding",
    "text", "error", "logprobs", "reasoning_content", "id", "context", "dimensions",
]  # fmt: skip
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "x", "{}", *WORDS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=6)
CHOICES = st.fixed_dictionaries(
    {"choices": st.lists(OBJECTS | VALUES, max_size=2)}, optional={"usage": VALUES}
)
DELTAS = OBJECTS.map(lambda delta: {"choices": [{"index": 0, "delta": delta}]})


@pytest.mark.parametrize("dialect", DIALECTS)
@given(body=OBJECTS)
def test_any_body(dialect: OllamaGeneration | OllamaEmbedding, body: dict[str, Any]) -> None:
    sent = json.dumps(body | {"model": "m"}).encode()
    dialect.own_reply(sent)
    with contextlib.suppress(InvalidBody):
        translated = dialect.request(sent)
        assert json.loads(translated.body)["model"] == "m"


@pytest.mark.parametrize("dialect", DIALECTS)
@given(answer=OBJECTS | CHOICES | VALUES)
def test_any_whole_response(dialect: OllamaGeneration | OllamaEmbedding, answer: object) -> None:
    for status in (200, 400):
        translator = dialect.request(ASKED).translator(status, b"application/json")
        with contextlib.suppress(InvalidResponse):
            translator.feed(json.dumps(answer).encode())
            json.loads(translator.end())


@given(events=st.lists(OBJECTS | CHOICES | DELTAS | VALUES, max_size=4), done=st.booleans())
def test_any_stream(events: list[object], done: bool) -> None:
    stream = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    translator = DIALECTS[0].request(ASKED).translator(200, b"text/event-stream")
    lines = (translator.feed(stream + b"data: [DONE]\n\n" * done) + translator.end()).splitlines()
    said = [json.loads(line) for line in lines]
    assert [line for line in said if line.get("done") or "error" in line] == said[-1:]
