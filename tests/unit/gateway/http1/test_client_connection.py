"""What a connection writes on its own account."""

from __future__ import annotations

from typing import Any, cast

import pytest

from llmlaunch.gateway.http1.client_connection import Application, ClientConnection
from llmlaunch.gateway.http1.framing import parse_head
from llmlaunch.gateway.request import ClientRequest


class App:
    """As much of an application as the head of a stream needs."""

    def __init__(self, stopping: bool) -> None:
        self.stopping = stopping

    def date(self) -> bytes:
        return b"today"

    def cors_fields(self, origin: bytes) -> bytes:
        return b"access-control-allow-origin: %b\r\n" % origin if origin else b""


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written += data


@pytest.mark.parametrize(
    ("http11", "stopping", "keeps"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_the_head_of_a_stream(http11: bool, stopping: bool, keeps: bool) -> None:
    client = ClientConnection(cast(Application, App(stopping)))
    transport: Any = Transport()
    client.transport = transport
    request = ClientRequest(b"POST", b"/", b"", http11, http11, 0.0, b"id", origin=b"https://a.example")
    client.begin_stream(request)
    head = parse_head(transport.written)
    assert (head.status, head.chunked, head.length) == (200, http11, None)
    assert head.keep_alive is keeps or not http11
    assert (b"connection", b"close") in head.fields or keeps
    assert head.get(b"content-type") == b"text/event-stream"
    assert head.get(b"x-request-id") == b"id"
    assert head.get(b"access-control-allow-origin") == b"https://a.example"
