"""Targets without I/O: the two sides that read bytes of strangers, each against h11 and against itself.

A target takes any bytes and raises AssertionError when something that must always hold does not. The first byte says
how the rest is cut into reads.
"""

from __future__ import annotations

from collections.abc import Iterator

import h11

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.http1 import request_parser
from llmlaunch.gateway.http1.framing import BodyFraming, ResponseHead, parse_head, read_head
from llmlaunch.gateway.http1.head_cache import HeadCache
from llmlaunch.gateway.http1.request_parser import PARSE_BYTES, PIPELINE_LIMIT, ParserRules, RequestParser
from llmlaunch.gateway.paths import endpoint
from llmlaunch.gateway.request import ClientRequest
from tests.support.h11_requests import by_h11

MOST_BODY = 4096
Told = tuple[object, ...]


def pieces(data: bytes) -> Iterator[bytes]:
    """``data`` behind its first byte, in reads of as many bytes as that says; 0 is all at once."""
    size = data[0] if data else 0
    rest = data[1:]
    for at in range(0, len(rest), size or max(1, len(rest))):
        yield rest[at : at + (size or len(rest))]


# -- requests


def screen(request: ClientRequest) -> Reply | None:
    request.endpoint = endpoint(request.path)
    return None


def read(reads: Iterator[bytes] | list[bytes], rules: ParserRules) -> list[Told]:
    reader = RequestParser(rules, False)
    found: list[ClientRequest] = []
    for data in reads:
        reader.feed(data)
        assert len(reader.ready) <= PIPELINE_LIMIT + PARSE_BYTES // 16, "requests pile up"
        while reader.ready:
            found.append(reader.ready.popleft())
            if not reader.ready:
                reader.parse_unread()
    assert not reader.unread
    assert not (reader.input_closed and reader.mid_request)
    told: list[Told] = []
    for request in found:
        if request.reply is not None:
            assert 400 <= request.reply.status <= 505
        told.append(
            (
                request.method, request.path, request.query, request.body, tuple(request.fields), request.http11,
                request.keep_alive, request.reply.status if request.reply else None,
            )
        )  # fmt: skip
        if not request.keep_alive:
            break  # nothing behind it is answered
    return told


def requests(data: bytes) -> None:
    """Cuts change nothing, nor do heads that were seen before; and h11 sees the same requests or refuses."""
    rules = ParserRules(screen, lambda: b"id", lambda: 0.0, MOST_BODY)
    whole = data[1:]
    first = read([whole], rules)
    assert read([whole], rules) == first, "a head that is remembered means something else"
    cut = read(pieces(data), rules)
    assert cut == first or _only_refused_earlier(cut, first), "cuts change what was asked"
    accepted = [told for told in first if told[-1] is None]
    theirs = by_h11(whole) if accepted else None
    if theirs is not None:
        for mine, other in zip(accepted, theirs, strict=False):
            assert (mine[0], mine[3]) == (other[0], other[2]), "another parser sees another border"


def _only_refused_earlier(cut: list[Told], first: list[Told]) -> bool:
    """Sizes of heads are told apart from what follows them only as far as reads do; a refusal's own words differ."""
    accepted = [told for told in cut if told[-1] is None]
    both = [told for told in first if told[-1] is None]
    return accepted == both[: len(accepted)] and len(accepted) in (len(cut) - 1, len(both))


# -- answers


def answers(data: bytes) -> None:
    """Cuts change nothing; an interruption fits wherever it comes; h11 reads the same content or refuses."""
    whole = data[1:]
    end = whole.find(b"\r\n\r\n")
    if end < 0:
        return
    seen: HeadCache[ResponseHead] = HeadCache()
    try:
        head = parse_head(whole[: end + 4])
    except InvalidResponse:
        return
    for _ in range(2):
        again = read_head(whole, end, seen)
        assert (again.status, again.length, again.chunked, again.keep_alive) == (
            head.status, head.length, head.chunked, head.keep_alive,
        )  # fmt: skip
    content, rest = b"", whole[end + 4 :]
    body, watcher = BodyFraming(head), BodyFraming(head)
    try:
        for piece in pieces(data[:1] + rest):
            if body.done:
                return
            content += body.decode(piece)
            watcher.feed(piece)
            assert body.done == watcher.done
    except InvalidResponse:
        interruption(head, watcher, rest)
        return
    interruption(head, watcher, rest)
    theirs = answer_by_h11(whole)
    if theirs is not None and head.status >= 200:
        assert theirs[0] == content, "another parser reads other content"
        assert theirs[1] == body.done, "another parser sees another end"


def interruption(head: ResponseHead, watcher: BodyFraming, rest: bytes) -> None:
    if not head.chunked:
        return
    sent = BodyFraming(head)
    passed = 0
    for size in (1 << 16, 4096, 256, 16, 1):  # as much as can be passed on
        while passed < len(rest) and not sent.done:
            try:
                sent.feed(rest[passed : passed + size])
            except InvalidResponse:
                break
            passed += len(rest[passed : passed + size])
    filler = sent.before_interruption()
    if filler is None:
        return
    event = b"data: error\n\n"
    reader = BodyFraming(head)
    content = reader.decode(rest[:passed] + filler + b"%x\r\n%b\r\n" % (len(event), event))
    assert content.endswith(event)


def answer_by_h11(data: bytes) -> tuple[bytes, bool] | None:
    """Content, and whether it is whole; None when h11 refuses."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "h")]))
    connection.send(h11.EndOfMessage())
    content = b""
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return content, True
            elif isinstance(event, h11.Response):
                pass
            elif isinstance(event, h11.InformationalResponse):
                return None
            else:
                return content, False
    except h11.RemoteProtocolError:
        return None


def raise_on_log() -> None:
    """A callback that fails is logged and answered with 400: here it has to be seen."""

    def error(message: str, *_: object, exc_info: BaseException | None = None) -> None:
        raise AssertionError(message) from exc_info

    request_parser.log.error = error  # type: ignore[method-assign,assignment]  # takes what is used of it
