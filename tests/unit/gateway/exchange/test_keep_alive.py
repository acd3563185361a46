"""Comments, and which requests are answered by a stream."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.exchange.keep_alive import error_event, only_comments, promises_events
from llmlaunch.gateway.paths import endpoint
from llmlaunch.gateway.request import ClientRequest
from tests.unit.gateway.exchange.test_exchange import Shouting

COMMENTS = b"e\r\n: keep-alive\n\n\r\n3\r\n:\n\n\r\n: OPENROUTER PROCESSING\r\n\r\n"
CONTENT = [
    b"data: 1",
    b"8\r\ndata: 1\n\r\n",
    b": a\n\ndata: 1",
    b"event: x\n",
    b'{"a": 1}',
    b"\n" * 50_000 + b"x",
]


@given(st.integers(0, len(COMMENTS)))
def test_comments_are_no_content_however_they_are_cut(cut: int) -> None:
    assert only_comments(COMMENTS[:cut])


@pytest.mark.parametrize("content", CONTENT)
def test_content_is(content: bytes) -> None:
    assert not only_comments(content)
    assert not only_comments(COMMENTS + content)


def request(path: str, body: bytes) -> ClientRequest:
    found = ClientRequest(b"POST", path.encode(), b"", True, True, 0.0, b"id")
    found.body, found.endpoint = body, endpoint(path.encode())
    return found


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/chat/completions", b'{"stream": true}', True),
        ("/v1/completions", b'{"stream":true}', True),
        ("/v1/responses", b'{"stream" : true}', True),
        ("/v1/chat/completions", b'{"stream": false}', False),
        ("/v1/chat/completions", b'{"tools": [{"stream": true}]}', False),
        ("/v1/chat/completions", b'{"stream": true', False),
        ("/v1/embeddings", b'{"stream": true}', False),
    ],
)
def test_only_a_stream_is_begun(path: str, body: bytes, expected: bool) -> None:
    assert promises_events(request(path, body)) is expected


class Lines(Shouting):
    """A dialect whose streams are lines of JSON."""

    def interruption(self, message: str) -> bytes:
        return b'\n{"error": "no"}\n'


class Events(Shouting):
    """A dialect with events."""

    streams_events = True

    def interruption(self, message: str) -> bytes:
        return b"\n\nevent: error\ndata: " + message.encode() + b"\n\n"


def test_a_dialect_has_its_own_streams() -> None:
    asked = request("/v1/chat/completions", b'{"stream": true}')
    for dialect, expected in ((Lines(), False), (Events(), True)):
        asked.endpoint = replace(asked.endpoint, dialect=dialect)
        assert promises_events(asked) is expected
    assert error_event(b'{"error": {"message": "no"}}', Events()) == b"\n\nevent: error\ndata: no\n\n"
