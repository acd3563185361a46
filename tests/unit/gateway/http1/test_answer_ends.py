"""Whether an answer that ends with its connection is whole."""

from __future__ import annotations

import pytest

from llmlaunch.gateway.http1.answer_ends import is_whole


@pytest.mark.parametrize(
    ("kind", "tail", "whole"),
    [
        (b"text/event-stream", b"data: [DONE]\n\n", True),
        (b"Text/Event-Stream; charset=utf-8", b"data: [DONE]\r\n\r\n", True),
        (b"text/event-stream", b'event: response.completed\ndata: {"type": "response.completed"}\n\n', True),
        (b"text/event-stream", b'data: {"error": {}}\n\n', True),
        (b"text/event-stream", b"data: [DONE]", False),
        (b"text/event-stream", b"data: {}\n\n", False),
        (b"text/event-stream", b"", False),
        (b"application/json", b"{}\n", True),
        (b"application/json", b"[1]", True),
        (b"application/json", b'{"a": "b"', False),
        (b"application/json", b"", False),
        (b"", b"", True),
    ],
)
def test_an_answer_that_is_whole_shows_it(kind: bytes, tail: bytes, whole: bool) -> None:
    assert is_whole(kind, tail) is whole
