"""Heads that were seen before: what they are known by, and that knowing them changes nothing."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.http1.framing import ResponseHead, parse_head, read_head
from llmlaunch.gateway.http1.head_cache import MAX_HEAD_BYTES, MAX_HEADS, HeadCache, key_of
from llmlaunch.gateway.http1.headers import onward
from llmlaunch.gateway.http1.request_parser import ParserRules, RequestParser
from llmlaunch.gateway.paths import endpoint
from llmlaunch.gateway.request import ClientRequest

POST = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\n"


def key(head: bytes) -> tuple[bytes, int | None] | None:
    return key_of(head + b"\r\n\r\n", len(head))


@pytest.mark.parametrize("spelling", ["content-length: ", "Content-Length: "])
def test_heads_that_differ_in_their_length_alone_have_one_key(spelling: str) -> None:
    heads = [f"POST / HTTP/1.1\r\n{spelling}{n}\r\nhost: h".encode() for n in (0, 7, 1234)]
    found = [key(head) for head in heads]
    assert len({pair[0] for pair in found if pair}) == 1
    assert [pair[1] for pair in found if pair] == [0, 7, 1234]


@pytest.mark.parametrize("value", ["", "+1", "1_0", "01", "1 ", " 1", "1, 1", "0x1", "²", "9" * 16])
def test_lengths_in_unusual_spellings_are_left_to_the_parser(value: str) -> None:
    assert key(f"POST / HTTP/1.1\r\ncontent-length: {value}\r\nhost: h".encode()) is None


def test_a_head_without_a_length_is_known_as_a_whole() -> None:
    assert key(b"HTTP/1.1 200 OK\r\ncontent-length:5") == (b"HTTP/1.1 200 OK\r\ncontent-length:5", None)


def test_large_heads_are_not_remembered() -> None:
    assert key(b"x" * (MAX_HEAD_BYTES + 1)) is None


lines = st.lists(
    st.sampled_from([b"content-length: 1", b"Content-Length: 2", b"content-length: ", b"content-length: 12", b"a: b",
                     b"xcontent-length: 1", b"Content-Length: 1", b"content-length:1", b"2"]),
    max_size=4,
)  # fmt: skip


@given(lines, lines)
def test_equal_keys_mean_equal_heads_but_for_one_length(one: list[bytes], two: list[bytes]) -> None:
    first, second = b"\r\n".join([b"s", *one]), b"\r\n".join([b"s", *two])
    a, b = key(first), key(second)
    if a is None or b is None or a[0] != b[0] or a[1] is None or b[1] is None:
        assert a is None or b is None or (a == b) == (first == second)
        return
    changed = [(x, y) for x, y in zip(first.split(b"\r\n"), second.split(b"\r\n"), strict=True) if x != y]
    assert changed in ([], [(b"content-length: %d" % a[1], b"content-length: %d" % b[1])],
                       [(b"Content-Length: %d" % a[1], b"Content-Length: %d" % b[1])])  # fmt: skip


def test_what_is_remembered_is_bounded() -> None:
    seen: HeadCache[int] = HeadCache()
    for n in range(3 * MAX_HEADS):
        seen.put(b"%d" % n, n)
        assert seen.get(b"%d" % n) == n
    assert sum(seen.get(b"%d" % n) is not None for n in range(3 * MAX_HEADS)) <= MAX_HEADS
    seen.clear()
    assert seen.get(b"%d" % (3 * MAX_HEADS - 1)) is None


# -- requests


class Screen:
    """Lets everything through, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, request: ClientRequest) -> Reply | None:
        self.asked += 1
        request.endpoint = endpoint(request.path)
        return Reply(401, b"") if b"wrong" in request.presented_key else None


def receiver(screen: Screen, rules: ParserRules | None = None) -> tuple[RequestParser, ParserRules]:
    rules = rules or ParserRules(screen, lambda: b"ours", lambda: 0.0, 1000)
    return RequestParser(rules, True), rules


def message(body: bytes, *fields: bytes) -> bytes:
    return POST + b"".join(b"%b\r\n" % f for f in fields) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_a_known_head_makes_the_same_request() -> None:
    fields = (
        b"Authorization: Bearer a",
        b"X-Request-Id: mine",
        b"Origin: o",
        b"Connection: keep-alive, x-own",
        b"x-own: 1",
    )
    screen = Screen()
    reader, _ = receiver(screen)
    for body in (b"one", b"another", b""):
        reader.feed(message(body, *fields))
    assert screen.asked == 1
    first, *others = reader.ready
    assert [r.body for r in reader.ready] == [b"one", b"another", b""]
    onward(first, plain=False)
    for other in others:
        for entry in dataclasses.fields(ClientRequest):
            if entry.name != "body":
                assert getattr(other, entry.name) == getattr(first, entry.name), entry.name


def test_requests_of_one_head_share_nothing_that_changes() -> None:
    reader, _ = receiver(Screen())
    for _ in range(3):
        reader.feed(message(b"x"))
        request = reader.ready.popleft()
        assert (request.keep_alive, request.reply, request.estimate, request.identity) == (
            True,
            None,
            None,
            b"ours",
        )
        request.keep_alive, request.reply, request.estimate = False, Reply(500, b""), 3


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=6), st.lists(st.integers(0, 1000), max_size=8))
def test_cuts_do_not_matter_for_known_heads(bodies: list[bytes], places: list[int]) -> None:
    screen = Screen()
    reader, rules = receiver(screen)
    reader.feed(message(b"learn"))
    data = b"".join(map(message, bodies))
    reader, _ = receiver(screen, rules)
    edges = sorted({0, len(data), *(place % len(data) for place in places)})
    for a, b in itertools.pairwise(edges):
        reader.feed(data[a:b])
    assert [(r.body, r.reply) for r in reader.ready] == [(body, None) for body in bodies]
    assert not reader.mid_request


def test_known_and_new_heads_take_turns() -> None:
    reader, _ = receiver(Screen())
    reader.feed(message(b"1") + message(b"2", b"a: b"))
    reader.feed(message(b"3") + message(b"4", b"c: d") + message(b"5"))
    reader.feed(message(b"6") + b"GET /health HTTP/1.1\r\nhost: h\r\n\r\n" + message(b"7"))
    assert [r.body for r in reader.ready] == [b"1", b"2", b"3", b"4", b"5", b"6", b"", b"7"]


def test_the_limit_of_a_body_holds_for_known_heads() -> None:
    reader, _ = receiver(Screen())
    for size in (1, 1000, 1001):
        reader.feed(message(b"x" * size))
    assert [r.reply and r.reply.status for r in reader.ready] == [None, None, 413]


def test_a_body_of_a_known_head_may_come_byte_by_byte() -> None:
    reader, _ = receiver(Screen())
    reader.feed(message(b"learn"))
    whole = message(bytes(range(200)))
    for at in range(len(whole)):
        reader.feed(whole[at : at + 1])
        assert reader.mid_request == (at + 1 < len(whole))
    assert reader.ready[-1].body == bytes(range(200))


@pytest.mark.parametrize(
    "fields",
    [
        [b"Authorization: Bearer wrong"], [b"Expect: 100-continue"], [b"Connection: close"], [b"Content-Length: 1"],
        [b"Host: twice"],
    ],
    ids=lambda fields: fields[0].decode(),
)  # fmt: skip
def test_what_is_not_simply_let_through_is_judged_every_time(fields: list[bytes]) -> None:
    screen = Screen()
    reader, rules = receiver(screen)
    reader.feed(message(b"x", *fields))
    expected = [(r.keep_alive, r.reply) for r in reader.ready]
    asked = screen.asked
    for n in range(2, 4):
        reader, _ = receiver(screen, rules)
        reader.feed(message(b"x", *fields))
        assert [(r.keep_alive, r.reply) for r in reader.ready] == expected
        assert screen.asked == n * asked


def test_heads_of_forms_do_not_fill_the_cache() -> None:
    screen = Screen()
    reader, rules = receiver(screen)
    upload = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=%d\r\n"
    for n in range(3):  # each has a boundary of its own
        reader.feed(upload % n + b"Content-Length: 1\r\n\r\nx")
        reader.feed(message(b"x"))
    assert len(reader.ready) == 6
    assert len(rules.head_cache._made) == 1


def test_a_refused_head_is_not_taken_for_one_that_is_let_through() -> None:
    screen = Screen()
    reader, rules = receiver(screen)
    reader.feed(message(b"x"))
    refused = b"Authorization: Bearer wrong"
    reader.feed(message(b"x", refused))
    reader.feed(message(b"x" * 1001))  # known, and judged again for its size
    reader, _ = receiver(screen, rules)
    reader.feed(message(b"x", refused))
    assert [r.reply and r.reply.status for r in reader.ready] == [401]


def test_what_was_let_through_can_be_forgotten() -> None:
    screen = Screen()
    reader, rules = receiver(screen)
    for forget in (False, False, True):
        if forget:
            rules.head_cache.clear()
        reader.feed(message(b"x"))
    assert screen.asked == 2


def test_nothing_is_read_behind_the_last_request() -> None:
    reader, _ = receiver(Screen())
    reader.feed(message(b"1"))
    reader.feed(message(b"2", b"Connection: close"))
    reader.feed(message(b"3"))
    assert [r.body for r in reader.ready] == [b"1", b"2"]


# -- answers


def read(data: bytes, seen: HeadCache[ResponseHead]) -> ResponseHead | str:
    try:
        return read_head(data, data.find(b"\r\n\r\n"), seen)
    except InvalidResponse as error:
        return str(error)


answer_lines = st.lists(
    st.sampled_from([b"content-length: 1", b"content-length: 20", b"Content-Length: 3", b"content-length: 01", b"server: x",
                     b"transfer-encoding: chunked", b"connection: close", b"content-type: application/json", b"bad"]),
    max_size=4,
)  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from([b"200 OK", b"204 No", b"304 Same", b"500 Oh"]), answer_lines), max_size=8
    )
)
def test_an_answer_means_the_same_whatever_came_before(answers: list[tuple[bytes, list[bytes]]]) -> None:
    seen: HeadCache[ResponseHead] = HeadCache()
    for status, fields in answers:
        data = b"HTTP/1.1 %b\r\n" % status + b"".join(b"%b\r\n" % line for line in fields) + b"\r\n"
        found = read(data, seen)
        try:
            expected: ResponseHead | str = parse_head(data)
        except InvalidResponse as error:
            expected = str(error)
        if isinstance(found, ResponseHead) and isinstance(expected, ResponseHead):
            assert found._replace(fields=()) == expected._replace(fields=())
            assert [name for name, _ in found.fields] == [name for name, _ in expected.fields]
        else:
            assert found == expected
