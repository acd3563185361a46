from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.http1.framing import _SIZES, BodyFraming, is_complete, parse_head

CHUNKED = parse_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def chunks(contents: list[bytes], trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in contents) + b"0\r\n" + trailer + b"\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


contents = st.lists(st.binary(min_size=1, max_size=20) | st.just(b"\r\n") | st.just(b"0\r\n\r\n"), max_size=6)
places = st.lists(st.integers(0, 400), max_size=12)


@given(contents, places, st.sampled_from([b"", b"x: y\r\n", b"a: \r\nb: c\r\n"]))
def test_chunks_are_decoded_however_they_are_cut(pieces: list[bytes], at: list[int], trailer: bytes) -> None:
    whole = chunks(pieces, trailer)
    decoder, watcher = BodyFraming(CHUNKED), BodyFraming(CHUNKED)
    got = b""
    for piece in cut(whole, at):
        assert not decoder.done
        got += decoder.decode(piece)
        watcher.feed(piece)
        assert decoder.done == watcher.done
    assert got == b"".join(pieces)
    assert decoder.done


@given(contents, places)
def test_what_is_the_next_chunk_needs_no_note(pieces: list[bytes], at: list[int]) -> None:
    """One reader skips such pieces, another takes note of them: they stay together to the end."""
    whole = chunks(pieces)
    skipping, noting = BodyFraming(CHUNKED), BodyFraming(CHUNKED)
    for piece in [*cut(whole, at), b"rubbish"]:
        if noting.done:
            assert not skipping.is_next_chunk(piece)
            break
        if not skipping.is_next_chunk(piece):
            skipping.feed(piece)
        noting.feed(piece)
        assert skipping.done == noting.done
        assert skipping.before_interruption() == noting.before_interruption()


def test_sizes_seen_before_make_the_next_chunk() -> None:
    body = BodyFraming(CHUNKED)
    body.feed(b"3\r\nabc\r\n")
    assert body.is_next_chunk(b"3\r\nxyz\r\n")
    for other in (
        b"3\r\nab\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabcde",
        b"0\r\n\r\n",
        b"3\r\nabc\r\n3\r\nabc\r\n",
        b"",
        b"3",
    ):
        assert not body.is_next_chunk(other)
    body.feed(b"3\r\na")
    assert not body.is_next_chunk(b"3\r\nabc\r\n")


@given(contents, places, st.integers(0, 10_000))
def test_an_interruption_leaves_room_for_one_more_chunk(
    pieces: list[bytes], at: list[int], where: int
) -> None:
    whole = chunks(pieces)
    sent = whole[: where % len(whole)]
    watcher = BodyFraming(CHUNKED)
    for piece in cut(sent, at):
        watcher.feed(piece)
    filler = watcher.before_interruption()
    if filler is None:
        return
    event = b"data: error\n\n"
    reader = BodyFraming(CHUNKED)
    content = reader.decode(sent + filler + b"%x\r\n%b\r\n" % (len(event), event))
    assert content.endswith(event)
    assert not reader.done
    before = BodyFraming(CHUNKED).decode(sent)
    assert content.startswith(before)
    assert not content[len(before) : -len(event)].strip(b"\n")


@given(contents, st.binary(min_size=1, max_size=5))
def test_bytes_behind_the_end_are_refused(pieces: list[bytes], extra: bytes) -> None:
    with pytest.raises(InvalidResponse):
        BodyFraming(CHUNKED).feed(chunks(pieces) + extra)


@pytest.mark.parametrize(
    "data",
    [b"x\r\n", b"+5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"5 5\r\nhello\r\n", b"5\nhello\n", b"5\r\nhelloX\r\n",
     b"5\r\nhello\rX", b"-1\r\n", b"_\r\n", b"1_0\r\n", b"\r\n", b"1" * 2000, b"0\r\nbad\r\n\r\n", b"0\r\na b: c\r\n\r\n",
     b"0\r\nX\n"],
)  # fmt: skip
def test_broken_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidResponse):
        BodyFraming(CHUNKED).feed(data)
    body = BodyFraming(CHUNKED)
    with pytest.raises(InvalidResponse):
        [body.decode(data[place : place + 1]) for place in range(len(data))]


@given(st.binary(max_size=40), places)
def test_arbitrary_bytes_are_refused_or_waited_for(data: bytes, at: list[int]) -> None:
    body = BodyFraming(CHUNKED)
    try:
        for piece in cut(data, at):
            body.feed(piece)
    except InvalidResponse:
        pass


@given(st.integers(0, 50), places)
def test_sized_bodies_end_where_they_say(size: int, at: list[int]) -> None:
    body = BodyFraming(parse_head(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size))
    assert body.done == (size == 0)
    for piece in cut(bytes(size), at):
        body.feed(piece)
    assert body.done
    with pytest.raises(InvalidResponse):
        body.feed(b"x")
    assert body.before_interruption() is None


def test_a_head_is_read() -> None:
    head = parse_head(b"HTTP/1.1 404 Not Here\r\nX-A:  b c \t\r\nEmpty:\r\nContent-Length: 5\r\n\r\n")
    assert (head.status, head.reason, head.length, head.chunked, head.keep_alive) == (
        404, b"Not Here", 5, False, True,
    )  # fmt: skip
    assert head.fields == ((b"x-a", b"b c"), (b"empty", b""), (b"content-length", b"5"))
    assert head.get(b"x-a") == b"b c"
    assert head.get(b"no") == b""


@pytest.mark.parametrize(
    ("head", "keep", "length", "chunked"),
    [
        (b"HTTP/1.1 200\r\n\r\n", True, None, False),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n", False, None, False),
        (b"HTTP/1.0 200 OK\r\n\r\n", False, None, False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\ncontent-length: 0\r\n\r\n", True, 0, False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True, 0, False),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n", True, 0, False),
        (b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\n\r\n", True, None, True),
        # RFC 9112 §6.1: its framing is faulty, so nothing may follow it.
        (
            b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n",
            False,
            None,
            True,
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n", True, 3, False),
    ],
)
def test_framing_by_the_head(head: bytes, keep: bool, length: int | None, chunked: bool) -> None:
    found = parse_head(head)
    assert (found.keep_alive, found.length, found.chunked) == (keep, length, chunked)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/1.1 999 X\r\n\r\n", b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n", b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n", b"HTTP/1.1 200 OK\r\n: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\n c: d\r\n\r\n", b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\0c\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)  # fmt: skip
def test_bad_heads_are_refused(head: bytes) -> None:
    with pytest.raises(InvalidResponse):
        parse_head(head)


@given(st.binary(max_size=80))
def test_arbitrary_heads_are_refused_or_read(data: bytes) -> None:
    try:
        parse_head(b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n")
    except InvalidResponse:
        pass


def test_a_body_until_close_has_no_end_of_its_own() -> None:
    body = BodyFraming(parse_head(b"HTTP/1.0 200 OK\r\n\r\n"))
    body.feed(b"anything")
    assert (body.done, body.until_close, body.before_interruption()) == (False, True, b"")


@given(
    contents,
    places,
    st.integers(0, 10_000),
    st.sampled_from([b"zz\r\n", b"3\r\nabcd\r\n", b"0\r\n\r\nx", b"\n"]),
)
def test_what_was_refused_was_never_passed_on(
    pieces: list[bytes], at: list[int], where: int, nonsense: bytes
) -> None:
    """A read that holds nonsense does not reach the client, and the error event has to fit what did."""
    whole = chunks(pieces)[:-5]
    where %= len(whole) + 1
    sent, refused = whole[:where], whole[where:] + nonsense
    watcher = BodyFraming(CHUNKED)
    for piece in cut(sent, at):
        watcher.feed(piece)
    with pytest.raises(InvalidResponse):
        watcher.feed(refused)
    filler = watcher.before_interruption()
    if filler is None:
        return
    event = b"data: error\n\n"
    content = BodyFraming(CHUNKED).decode(sent + filler + b"%x\r\n%b\r\n" % (len(event), event))
    assert content.endswith(event)
    assert content.startswith(BodyFraming(CHUNKED).decode(sent))


def test_a_field_of_white_space_is_read_in_one_pass() -> None:
    """Backtracking would take 64 KiB squared steps, with everybody waiting."""
    value = b"a" + b" \t" * 30_000 + b"b"
    assert parse_head(b"HTTP/1.1 200 OK\r\nx: \t%b \t\r\n\r\n" % value).fields == ((b"x", value),)
    with pytest.raises(InvalidResponse):
        parse_head(b"HTTP/1.1 200 OK\r\nx: " + b" " * 60_000 + b"\0\r\n\r\n")
    body = BodyFraming(CHUNKED)
    body.feed(b"0\r\nx: %b\r\n\r\n" % value)
    assert body.done


def test_what_is_remembered_of_size_lines_is_small() -> None:
    body = BodyFraming(CHUNKED)
    body.feed(b"1\r\nx\r\n")
    for number in range(100):
        body.feed(b"1;%d%b\r\nx\r\n" % (number, b"a" * 900))
        body.feed(b"%x%b\r\nx\r\n" % (1, b" " * 100))
    assert max(map(len, _SIZES)) <= 16


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
    assert is_complete(kind, tail) is whole
