"""The receiver fed directly: cuts do not matter, nothing crashes it, and a second parser agrees."""

from __future__ import annotations

import gzip
import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.http1.body_memory import BodyMemory
from llmlaunch.gateway.http1.request_parser import (
    HEAD_LIMIT,
    PARSE_BYTES,
    PIPELINE_LIMIT,
    ParserRules,
    RequestParser,
)
from llmlaunch.gateway.paths import endpoint
from llmlaunch.gateway.request import ClientRequest
from tests.support.h11_requests import by_h11


def screen(request: ClientRequest) -> Reply | None:
    request.endpoint = endpoint(request.path)
    return None


RULES = ParserRules(screen, lambda: b"id", lambda: 0.0, 1000)


def receiver(rules: ParserRules = RULES) -> RequestParser:
    return RequestParser(rules, False)


def received(data: bytes, cuts: list[int]) -> list[tuple[object, ...]]:
    reader = receiver()
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    for a, b in itertools.pairwise(edges):
        reader.feed(data[a:b])
    return [
        (r.method, r.path, r.query, r.body, r.fields, r.keep_alive, r.reply.status if r.reply else None)
        for r in reader.ready
    ]


def packed(
    body: bytes, coding: str = "gzip", more: bytes = b"", rules: ParserRules = RULES
) -> list[ClientRequest]:
    reader = receiver(rules)
    head = f"POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-encoding: {coding}\r\ncontent-length: {len(body)}\r\n\r\n"
    for _ in range(2):  # the second time the head could come from the cache
        reader.feed(head.encode() + body[:5])
        reader.feed(body[5:])
    reader.feed(more)
    return list(reader.ready)


def test_a_packed_body_is_unpacked() -> None:
    text = b'{"model": "m"}' * 50
    plain = b"POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"
    first, second, last = packed(gzip.compress(text), more=plain)
    for request in (first, second):
        assert (request.body, request.reply) == (text, None)
        assert request.fields == [(b"host", b"h")]
    assert last.body == b"{}"


@pytest.mark.parametrize(
    ("body", "coding", "status", "said"),
    [
        (gzip.compress(bytes(1001)), "gzip", 413, b"larger than 1000 bytes"),
        (gzip.compress(bytes(10 << 20))[:900], "gzip", 413, b"larger than 1000 bytes"),
        (b"not packed", "gzip", 400, b"Content-Encoding"),
        (b"not packed", "zstd", 400, b"Content-Encoding"),
        (b"anything", "br", 415, b"Content-Encoding"),
        (b"anything", "gzip, gzip", 415, b"Content-Encoding"),
    ],
    ids=["too large", "a bomb", "not packed", "no zstd", "unknown coding", "two codings"],
)
def test_a_body_that_cannot_be_unpacked_is_refused(
    body: bytes, coding: str, status: int, said: bytes
) -> None:
    request = packed(body, coding)[0]
    assert request.reply is not None
    assert request.reply.status == status
    assert said in request.reply.body
    assert (b"accept-encoding: gzip, deflate, zstd" in request.reply.fields) is (status == 415)


def test_a_body_that_grows_beyond_measure_is_refused_before_it_is_too_large() -> None:
    rules = replace(RULES, max_body_bytes=1 << 30, bodies=BodyMemory(1 << 30))
    request = packed(gzip.compress(bytes(32 << 20)), rules=rules)[0]
    assert request.reply is not None
    assert (request.reply.status, request.body) == (413, b"")
    assert b"250 times" in request.reply.body


def test_no_body_needs_no_unpacking() -> None:
    reader = receiver()
    reader.feed(b"GET /v1/models HTTP/1.1\r\nhost: h\r\ncontent-encoding: gzip\r\n\r\n")
    assert reader.ready[0].reply is None


def test_an_unpacked_body_counts_as_one_that_came_so() -> None:
    rules = replace(RULES, max_body_bytes=1 << 20, bodies=BodyMemory(100_000))
    reader = receiver(rules)
    body = gzip.compress(bytes(90_000))
    head = (
        b"POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
        % len(body)
    )
    reader.feed((head + body) * 2)
    first, second = reader.ready
    assert (first.reserved, len(first.body)) == (90_000, 90_000)
    assert second.reply is not None
    assert (second.reply.status, second.body) == (503, b"")


names = st.sampled_from([b"x-a", b"Content-Type", b"accept"])
fields = st.lists(st.tuples(names, st.from_regex(rb"[!-~]{0,12}", fullmatch=True)), max_size=4)


@st.composite
def good_requests(draw: st.DrawFn) -> bytes:
    body = draw(st.binary(max_size=60))
    path = draw(st.sampled_from([b"/v1/completions", b"/x?y=1", b"http://a/b?c"]))
    lines = [b"POST %b HTTP/1.1\r\nHost: h\r\n" % path]
    lines += [b"%b: %b\r\n" % field for field in draw(fields)]
    if draw(st.booleans()):
        return b"".join(lines) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    step = draw(st.integers(1, 20))
    pieces = [body[n : n + step] for n in range(0, len(body), step)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"".join(lines) + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


cuts = st.lists(st.integers(0, 2000), max_size=10)


@given(st.lists(good_requests(), min_size=1, max_size=4), cuts)
def test_cuts_between_reads_do_not_matter(requests: list[bytes], at: list[int]) -> None:
    data = b"".join(requests)
    whole = received(data, [])
    assert received(data, at) == whole
    assert len(whole) == len(requests)
    assert all(entry[-1] is None for entry in whole)


damage = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.sampled_from([b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"\r\n ", b"1", b"chunked", b"\xff", b"0\r\n\r\n",
                         b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n"]),
        st.integers(0, 3),
    ),
    max_size=3,
)  # fmt: skip


@settings(max_examples=300)
@given(good_requests(), good_requests(), damage)
@example(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\nx", b"", [])
def test_what_is_accepted_has_the_same_borders_for_another_parser(
    first: bytes, second: bytes, blows: list[tuple[int, bytes, int]]
) -> None:
    """Smuggling needs two parsers that disagree about where a request ends; ours must never be the laxer one."""
    data = first + second
    for at, blow, length in blows:
        at %= len(data) + 1
        data = data[:at] + blow + data[at + length :]
    ours = [entry for entry in received(data, []) if entry[-1] is None]
    theirs = by_h11(data, 10_000)
    if theirs is None or not ours:
        return  # one of both refuses: nothing can be smuggled
    for mine, other in zip(ours, theirs, strict=False):
        assert (mine[0], mine[3]) == (other[0], other[2])


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.builds(lambda a, b: a + b, good_requests(), st.binary(max_size=50)), cuts)
def test_arbitrary_bytes_never_raise(data: bytes, at: list[int]) -> None:
    for entry in received(data, at):
        assert entry[-1] is None or 400 <= int(str(entry[-1])) < 600


def test_a_body_in_tiny_chunks_is_held_in_one_piece() -> None:
    reader = receiver()
    reader.feed(b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(900):
        reader.feed(b"1\r\nx\r\n")
    reader.feed(b"0\r\n\r\n")
    assert reader.ready[0].body == b"x" * 900


def test_limits_are_kept_however_slowly_it_comes() -> None:
    reader = receiver()
    reader.feed(b"GET / HTTP/1.1\r\nx: ")
    fed = 0
    while not reader.ready:
        reader.feed(b"a" * 100)
        fed += 100
        assert fed <= HEAD_LIMIT + 200
    reply = reader.ready[0].reply
    assert reply is not None
    assert reply.status == 431


def test_a_large_pipelined_body_does_not_count_as_the_next_head() -> None:
    rules = ParserRules(screen, lambda: b"id", lambda: 0.0, 1 << 20)
    reader = RequestParser(rules, False)
    body = bytes(100_000)
    reader.feed(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\n\r\n" + body + b"GET / HT")
    reader.feed(b"TP/1.1\r\nhost: h\r\n\r\n")
    assert [(r.method, r.reply) for r in reader.ready] == [(b"POST", None), (b"GET", None)]


def test_a_refusal_stays_what_it_was_while_an_unwanted_body_comes() -> None:
    def refuse(request: ClientRequest) -> Reply | None:
        return errors.invalid_api_key(missing=True)

    reader = receiver(ParserRules(refuse, lambda: b"id", lambda: 0.0, 1 << 20))
    reader.feed(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 50000\r\n\r\n")
    for _ in range(5):
        reader.feed(bytes(10_000))
    assert [(r.reply.status, r.keep_alive) for r in reader.ready if r.reply] == [(401, True)]
    reader.feed(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 50000\r\n\r\nx")
    reader.refuse_rest(errors.request_timeout())
    assert [(r.reply.status, r.keep_alive) for r in reader.ready if r.reply] == [(401, True), (401, False)]


def test_thousands_of_upgrades_in_one_read_are_thousands_of_requests() -> None:
    one = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    reader = receiver()
    reader.feed(one * 3000)
    assert taken(reader) == [None] * 3000


def taken(reader: RequestParser) -> list[Reply | None]:
    """The replies of all requests, taken in turn as they come."""
    found = []
    while reader.ready:
        found.append(reader.ready.popleft().reply)
        if not reader.ready:
            reader.parse_unread()
    return found


@pytest.mark.parametrize(
    "one", [b"GET / HTTP/1.1\r\nhost:\r\n\r\n", b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nhost:\r\n\r\n"]
)
def test_requests_far_ahead_of_their_turn_stay_bytes(one: bytes) -> None:
    reader = receiver()
    count = (256 << 10) // len(one)
    reader.feed(one * count)
    assert len(reader.ready) <= PARSE_BYTES // len(one) + PIPELINE_LIMIT
    reader.feed(one)
    assert taken(reader) == [None] * (count + 1)
    assert not reader.unread


def test_a_large_body_behind_many_requests_is_whole() -> None:
    reader = receiver(ParserRules(screen, lambda: b"id", lambda: 0.0, 1 << 20))
    small, body = b"GET / HTTP/1.1\r\nhost:\r\n\r\n", random.Random(1).randbytes(300_000)
    large = b"POST / HTTP/1.1\r\nhost:\r\ncontent-length: 300000\r\n\r\n" + body
    reader.feed(small * 1000 + large[:200_000])
    reader.feed(large[200_000:] + small)
    found = []
    while reader.ready:
        found.append(reader.ready.popleft())
        if not reader.ready:
            reader.parse_unread()
    assert [request.body for request in found] == [b""] * 1000 + [body, b""]
