"""Which header fields pass the gateway."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.http1 import headers
from llmlaunch.gateway.http1.framing import parse_head


def test_what_connection_names_is_hop_by_hop() -> None:
    named = headers.named_by_connection(b"close, X-Own ,,te")
    lines = headers.for_worker([(b"x-own", b"1"), (b"keep", b"2"), (b"te", b"3")], named, plain=False)
    assert headers.to_worker(b"POST", b"/p", b"host: h:1\r\n", lines, b"id", 4) == (
        b"POST /p HTTP/1.1\r\nhost: h:1\r\ncontent-length: 4\r\nx-request-id: id\r\nkeep: 2\r\n\r\n"
    )


def test_an_answer_that_will_be_rewritten_is_asked_for_plain() -> None:
    fields = [(b"accept-encoding", b"gzip")]
    for plain in (True, False):
        assert (b"gzip" in headers.for_worker(fields, frozenset(), plain)) is not plain


def test_the_head_for_a_client() -> None:
    head = parse_head(
        b"HTTP/1.1 200 Fine\r\nserver: x\r\nconnection: a\r\na: 1\r\ncontent-type: t\r\ncontent-length: 3\r\n"
        b"access-control-allow-origin: *\r\nx-request-id: theirs\r\n\r\n"
    )
    framing = b"content-length: 3\r\nextra: 1\r\n"
    assert headers.to_client(head.status, head.reason, head.onward, b"ours", framing) == (
        b"HTTP/1.1 200 Fine\r\nx-request-id: ours\r\ncontent-type: t\r\ncontent-length: 3\r\nextra: 1\r\n\r\n"
    )


@given(st.binary(max_size=200))
def test_a_request_id_is_safe_to_repeat(value: bytes) -> None:
    found = headers.request_id(value, b"ours")
    assert found in (value, b"ours")
    assert 0 < len(found) <= 128
    assert not set(found) & set(b"\r\n\0 \t")
