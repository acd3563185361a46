"""Answers get back the name that was asked for."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.http1.framing import parse_head
from llmlaunch.gateway.payload.model_name_rewrite import EventNameRewriter, rewriter_for, with_name


@given(st.lists(st.integers(0, 300), max_size=8))
def test_events_are_renamed_however_they_are_cut(places: list[int]) -> None:
    stream = (
        b': hello\n\ndata: {"model":"ugly","x":1}\n\nevent: response.created\r\n'
        b'data: {"response":{"model":"ugly"}}\r\n\r\ndata: [DONE]\n\n'
    )
    restorer, edges = EventNameRewriter("nice"), sorted({0, len(stream), *(p % len(stream) for p in places)})
    got = b"".join(restorer.feed(stream[a:b]) for a, b in itertools.pairwise(edges))
    got += restorer.end()
    assert got == stream.replace(b"ugly", b"nice")


def test_only_json_objects_with_a_model_are_touched() -> None:
    for text in (b"[]", b"{", b'{"a": 1.0}', b'"model"', b"[" * 100_000):
        assert with_name(text, "n") == text
    assert json.loads(with_name(b'{"model": "x", "data": [{"model": "inner"}]}', "n")) == {
        "model": "n", "data": [{"model": "inner"}],
    }  # fmt: skip
    start = b'{"type":"message_start","message":{"model":"x"}}'
    assert with_name(start, "n") == start.replace(b'"x"', b'"n"')


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\n\r\n", "JsonNameRewriter"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream\r\n\r\n", "EventNameRewriter"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\n\r\n", "NoneType"),
        (b"HTTP/1.1 400 No\r\ncontent-type: application/json\r\n\r\n", "NoneType"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "NoneType"),
    ],
)
def test_what_is_restored(head: bytes, expected: str) -> None:
    assert type(rewriter_for(parse_head(head), "n")).__name__ == expected
