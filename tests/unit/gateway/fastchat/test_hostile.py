"""Any JSON, from either side: the answer is an error of ours or none, never another exception."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.fastchat import request_translation
from llmlaunch.gateway.fastchat.conversation import parse, prompt
from llmlaunch.gateway.fastchat.response_translation import (
    ChoiceState,
    ResponseShape,
    WorkerError,
    check,
    embeddings,
    usage,
    vectors,
)
from llmlaunch.gateway.payload.model_field import dump

SCALARS = (
    st.none() | st.booleans() | st.integers(-5, 70000) | st.floats() | st.text(max_size=5) | st.just("\ud800")
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def objects(*names: str, **known: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with these fields, each missing, odd, or as it should be."""
    return st.fixed_dictionaries(
        {}, optional=dict.fromkeys(names, JSON) | {k: v | JSON for k, v in known.items()}
    )


TEMPLATES = objects(
    "name", "system_template", "system_message", "messages", "sep", "sep2", "stop_str", "stop_token_ids",
    "max_image_size_mb", sep_style=st.integers(1, 23),
).map(lambda conv: {"roles": ["U", "A"], "sep_style": 1, **conv})  # fmt: skip
PIECES = objects(
    "error_code", "usage", "finish_reason", text=st.text(max_size=4),
    logprobs=objects(tokens=st.just(["a"]), token_logprobs=st.lists(st.floats(), min_size=1, max_size=1)),
).map(lambda piece: {"error_code": 0, **piece})  # fmt: skip
MESSAGES = st.lists(
    objects("tool_calls", "content", role=st.sampled_from(["system", "user", "assistant"])), max_size=3
)
BODIES = objects(
    "temperature", "top_p", "top_k", "n", "max_tokens", "max_completion_tokens", "stop", "stream", "stream_options",
    "logprobs", "echo", "best_of", "tools", "tool_choice", "response_format", "logit_bias", "encoding_format",
    "presence_penalty", "repetition_penalty", "dimensions", messages=MESSAGES,
    prompt=st.text(max_size=3), input=st.lists(st.text(max_size=3), max_size=2),
).map(lambda body: {**body, "model": "m"})  # fmt: skip


@given(TEMPLATES | JSON)
def test_templates(conv: object) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(prompt(parse(conv), None, [(True, "hi"), (False, ""), (True, "x")]), str)


@given(st.lists(PIECES | JSON, max_size=4))
def test_pieces(pieces: list[Any]) -> None:
    choice, shape = ChoiceState(0, 0, 9), ResponseShape("i", 0, "m", chat=True)
    with contextlib.suppress(WorkerError):
        for piece in pieces:
            shape.events(0, choice.take(check(piece)))
        choice.end()
        json.loads(dump(shape.document([choice], usage([choice], [1], [0]))), parse_constant=no_json)


def no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@given(objects(embedding=st.lists(st.lists(st.floats(), max_size=2), max_size=2), token_num=st.integers()))
def test_embeddings(answer: dict[str, Any]) -> None:
    with contextlib.suppress(WorkerError):
        rows, tokens = vectors(answer)
        embeddings("m", rows, tokens, in_base64=True)
        json.loads(dump(embeddings("m", rows, tokens, in_base64=False)), parse_constant=no_json)


@pytest.mark.parametrize(
    "read", [request_translation.chat, request_translation.completion, request_translation.embedding]
)
@given(BODIES)
def test_requests(read: Callable[[dict[str, Any]], Any], body: dict[str, Any]) -> None:
    with contextlib.suppress(request_translation.UnsupportedRequest):
        asked = read(body)
        template = parse({"roles": ["U", "A"], "sep_style": 1})
        if isinstance(asked, request_translation.TextGenerationRequest):
            for text in asked.texts(template):
                text.encode()
                assert None not in asked.parameters(template, text, 5)["stop"]
