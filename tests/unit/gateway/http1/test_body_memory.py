"""The bytes of all bodies together: what is counted is given back, whatever becomes of a request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway import errors
from llmlaunch.gateway.http1.body_memory import COUNTED_FROM, BodyMemory
from llmlaunch.gateway.http1.request_parser import ParserRules, RequestParser
from llmlaunch.gateway.request import ClientRequest
from tests.unit.gateway.http1.test_request_parser import screen

LARGE = COUNTED_FROM * 8


def rules(most: int) -> ParserRules:
    return ParserRules(screen, lambda: b"id", lambda: 0.0, 1 << 20, bodies=BodyMemory(most))


def head(length: int, extra: bytes = b"") -> bytes:
    return b"POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n%b\r\n" % (length, extra)


def chunked(*pieces: bytes) -> bytes:
    start = b"POST /v1/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    return start + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def statuses(reader: RequestParser) -> list[int | None]:
    return [None if request.reply is None else request.reply.status for request in reader.ready]


def test_a_body_is_counted_when_it_is_announced_and_given_back_when_its_request_is_over() -> None:
    asked = rules(LARGE)
    first, second = RequestParser(asked, False), RequestParser(asked, False)
    first.feed(head(LARGE))
    assert asked.bodies.reserved == LARGE
    second.feed(head(LARGE))
    (refused,) = second.ready
    assert refused.reply is not None
    assert (refused.reply.status, refused.keep_alive) == (503, False)
    assert b"retry-after: " in refused.reply.fields
    first.feed(bytes(LARGE))
    (whole,) = first.ready
    assert (whole.reply, len(whole.body), asked.bodies.reserved) == (None, LARGE, LARGE)
    asked.bodies.release(whole)
    asked.bodies.release(whole)
    assert asked.bodies.reserved == 0


def test_a_head_that_is_known_by_its_bytes_counts_as_one_that_is_parsed() -> None:
    asked = rules(LARGE)
    for _ in range(3):  # the first is parsed and remembered, the others are found
        reader = RequestParser(asked, False)
        reader.feed(head(LARGE) + bytes(LARGE))
        assert (statuses(reader), asked.bodies.reserved) == ([None], LARGE)
        other = RequestParser(asked, False)
        other.feed(head(LARGE) + bytes(LARGE))
        assert statuses(other) == [503]
        assert asked.bodies.reserved == LARGE
        reader.end()
        assert asked.bodies.reserved == 0


def test_a_chunked_body_is_counted_as_it_comes_and_dropped_where_there_is_no_more_room() -> None:
    asked = rules(LARGE)
    reader = RequestParser(asked, False)
    reader.feed(chunked(bytes(COUNTED_FROM)))
    assert asked.bodies.reserved == 0  # a small one, so far
    reader.feed(b"%x\r\n%b\r\n" % (LARGE // 2, bytes(LARGE // 2)))
    assert asked.bodies.reserved == COUNTED_FROM + LARGE // 2
    reader.feed(b"%x\r\n%b\r\n" % (LARGE, bytes(LARGE)))
    assert (statuses(reader), asked.bodies.reserved) == ([503], 0)


def test_small_bodies_are_not_counted() -> None:
    asked = rules(0)
    reader = RequestParser(asked, False)
    for _ in range(2):
        reader.feed(head(COUNTED_FROM) + bytes(COUNTED_FROM))
    assert (statuses(reader), asked.bodies.reserved) == ([None, None], 0)


@pytest.mark.parametrize("extra", [b"", b"expect: 100-continue\r\n", b"connection: close\r\n"])
def test_a_refusal_for_another_reason_holds_nothing(extra: bytes) -> None:
    asked = rules(LARGE)
    reader = RequestParser(asked, False)
    reader.feed(head(2 << 20, extra))
    assert (statuses(reader), asked.bodies.reserved) == ([413], 0)


def test_a_body_that_stops_coming_is_given_back() -> None:
    asked = rules(LARGE)
    reader = RequestParser(asked, False)
    reader.feed(head(LARGE) + b"x")
    reader.refuse_rest(errors.request_timeout())
    assert (statuses(reader), asked.bodies.reserved) == ([408], 0)


SIZES = st.sampled_from([0, 10, COUNTED_FROM, COUNTED_FROM + 1, LARGE, 3 * LARGE])


@given(st.lists(st.tuples(SIZES, st.booleans(), st.integers(0, 5 * LARGE), st.booleans()), max_size=12))
def test_nothing_is_left_over_and_the_bound_is_never_exceeded(
    history: list[tuple[int, bool, int, bool]],
) -> None:
    asked = rules(4 * LARGE)
    answered: list[ClientRequest] = []
    readers = []
    for size, in_chunks, cut, is_answered in history:
        reader = RequestParser(asked, False)
        readers.append(reader)
        data = chunked(bytes(size)) + b"0\r\n\r\n" if in_chunks and size else head(size) + bytes(size)
        reader.feed(data[:cut])
        assert asked.bodies.reserved <= asked.bodies.limit
        if is_answered and reader.ready:
            answered.append(reader.ready.popleft())
    assert asked.bodies.reserved <= asked.bodies.limit
    for request in answered:
        asked.bodies.release(request)
    for reader in readers:
        reader.end()
    assert asked.bodies.reserved == 0
