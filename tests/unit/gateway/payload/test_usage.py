"""Tokens are read from the end of an answer, however it was cut, and never from what a model wrote."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.payload.usage import LOOK_BACK, TAIL_READS, tokens_in

CHAT = {
    "id": "c",
    "choices": [{"message": {"content": "hi"}}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 7},
}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}, (11, 7)),
        ({"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}, (11, 7)),
        ({"prompt_tokens": 11, "total_tokens": 11}, (11, 0)),
        ({"prompt_tokens": 11, "total_tokens": 18, "completion_tokens": 7}, (11, 7)),
        ({"prompt_tokens": 11, "completion_tokens": 7.5}, (11, 0)),
        ({"total_tokens": 5}, (5, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 3}, (0, 3)),
        ({"prompt_tokens_details": {"cached_tokens": 4}, "prompt_tokens": 5, "completion_tokens": 6}, (5, 6)),
        ({"prompt_tokens": 5, "completion_tokens": 6, "completion_tokens_details": {"output_tokens": 1}}, (5, 6)),
        ({"input_tokens": 2, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 5, "output_tokens": 7}, (11, 7)),
        ({}, None),
        (None, None),
        ([1], None),
    ],
)  # fmt: skip
def test_the_names_of_all_apis(usage: object, expected: tuple[int, int] | None) -> None:
    for indent in (None, 2):
        assert tokens_in([json.dumps({"choices": [], "usage": usage}, indent=indent).encode()]) == expected


def test_the_last_usage_counts_and_null_is_none() -> None:
    events = [
        b'data: {"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n',
        b'data: {"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n', b"data: [DONE]\n\n",
    ]  # fmt: skip
    assert tokens_in(events) == (3, 2)
    assert tokens_in([b'data: {"choices":[],"usage":null}\n\n', b"data: [DONE]\n\n"]) is None


@given(
    st.text(max_size=40),
    st.sampled_from(['"usage":{"prompt_tokens":999}', '{"usage": {"total_tokens": 5}}', '"usage"']),
)
def test_what_a_model_writes_is_no_usage(text: str, trick: str) -> None:
    content = text + trick
    body = json.dumps({"choices": [{"message": {"content": content}}], "usage": CHAT["usage"]}).encode()
    assert tokens_in([body]) == (11, 7)
    body = json.dumps(
        {"usage": None, "choices": [{"message": {"content": content}}]}, ensure_ascii=False
    ).encode(errors="surrogatepass")
    assert tokens_in([body]) is None


@given(st.lists(st.integers(0, 10_000), max_size=TAIL_READS - 1))
def test_cuts_do_not_matter(places: list[int]) -> None:
    body = json.dumps(CHAT).encode()
    edges = sorted({0, len(body), *(place % len(body) for place in places)})
    assert tokens_in([body[a:b] for a, b in itertools.pairwise(edges)]) == (11, 7)


def test_only_the_end_is_looked_at() -> None:
    pieces = [json.dumps(CHAT).encode(), b"x" * (LOOK_BACK + 1)]
    assert tokens_in(pieces) is None
    assert tokens_in([]) is None


def test_a_number_that_is_cut_off_is_not_believed() -> None:
    assert tokens_in([b'{"usage":{"prompt_tokens":12']) is None
