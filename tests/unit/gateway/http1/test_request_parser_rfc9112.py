"""Requests as RFC 9112 (and 9110 where it says so) judges them: each case with its paragraph and what comes of it.

An accepted request is written ``METHOD path body``, a refused one as its status. Every case is fed whole and byte by
byte, and is followed by an innocent request: behind one that was refused, nothing may be read as a request.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.http1.request_parser import FIELDS_LIMIT, HEAD_LIMIT, ParserRules, RequestParser
from llmlaunch.gateway.paths import endpoint
from llmlaunch.gateway.request import ClientRequest

NEXT = b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


@dataclass(frozen=True)
class Case:
    paragraph: str
    data: bytes
    expected: list[str | int]
    """What comes of it; the innocent request behind it counts too."""


def post(fields: bytes, body: bytes = b"") -> bytes:
    return b"POST /p HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked\r\n", body)


def get(start: bytes = b"GET / HTTP/1.1", fields: bytes = b"Host: h\r\n") -> bytes:
    return start + b"\r\n" + fields + b"\r\n"


AND_NEXT = "GET /next "

CASES = {
    # -- lines and white space
    "an empty line in front": Case("2.2", b"\r\n\r\n" + get(), ["GET / ", AND_NEXT]),
    "bare LF behind the start line": Case("2.2", b"GET / HTTP/1.1\nHost: h\r\n\r\n", [400]),
    "bare LF behind a field": Case("2.2", get(fields=b"Host: h\nX: a\r\n"), [400]),
    "bare LF as the empty line": Case("2.2", b"GET / HTTP/1.1\r\nHost: h\r\n\n" + SMUGGLED, [400]),
    "bare CR in a field": Case("2.2", get(fields=b"Host: h\r\nX: a\rb\r\n"), [400]),
    "bare CR behind the start line": Case("2.2", b"GET / HTTP/1.1\rHost: h\r\n\r\n", [400]),
    "white space before the first field": Case("2.2", get(fields=b" X: a\r\nHost: h\r\n"), [400]),
    "white space before the start line": Case("3", b" " + get(), [400]),
    "NUL in the start line": Case("2.2", get(b"GET /\0 HTTP/1.1"), [400]),
    # -- the start line
    "no version": Case("3", b"GET /\r\n\r\n", [505]),
    "version 0.9": Case("2.3", get(b"GET / HTTP/0.9"), [505]),
    "version 2.0 without its preface": Case("2.3, 9110 15.6.6", get(b"GET / HTTP/2.0"), [505]),
    "version 2.0 with a body": Case(
        "2.3", b"POST /p HTTP/2.0\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", [505]
    ),
    "version 3.7": Case("2.3", get(b"GET / HTTP/3.7"), [400]),
    "version in small letters": Case("2.3", get(b"GET / http/1.1"), [400]),
    "version with one more digit": Case("2.3", get(b"GET / HTTP/1.10"), [400]),
    "white space behind the version": Case("3", get(b"GET / HTTP/1.1 "), [400]),
    "a tab between the parts": Case("3", get(b"GET\t/ HTTP/1.1"), [400]),
    "a target with a space": Case("3", get(b"GET /a b HTTP/1.1"), [400]),
    "no target": Case("3", get(b"GET HTTP/1.1"), [400]),
    "a method that is no token": Case("3.1", get(b"G@T / HTTP/1.1"), [400]),
    "a method in small letters": Case("3.1", get(b"get / HTTP/1.1"), [400]),
    # -- the target
    "origin form": Case("3.2.1", get(b"GET /a?b=/c HTTP/1.1"), ["GET /a ", AND_NEXT]),
    "absolute form": Case("3.2.2", get(b"GET http://other:8/a?b HTTP/1.1"), ["GET /a ", AND_NEXT]),
    "absolute form without a path": Case("3.2.2", get(b"GET http://other HTTP/1.1"), ["GET / ", AND_NEXT]),
    "absolute form with a query and no path": Case(
        "3.2.2", get(b"GET http://other?x=/v1 HTTP/1.1"), ["GET / ", AND_NEXT]
    ),
    "authority form for another method": Case("3.2.3", get(b"GET other:80 HTTP/1.1"), [400]),
    "asterisk form": Case("3.2.4", get(b"OPTIONS * HTTP/1.1"), ["OPTIONS * ", AND_NEXT]),
    "bytes beyond ASCII": Case("3.2", get(b"GET /\xe4 HTTP/1.1"), [400]),
    "CONNECT": Case("3.2.3", get(b"CONNECT h:80 HTTP/1.1") + SMUGGLED, [405]),
    # -- Host
    "no Host": Case("3.2", get(fields=b"X: a\r\n"), [400]),
    "no Host in 1.0": Case("3.2", get(b"GET / HTTP/1.0", b""), ["GET / "]),
    "no Host in absolute form": Case("3.2", get(b"GET http://h/ HTTP/1.1", b"X: a\r\n"), [400]),
    "an empty Host": Case("3.2", get(fields=b"Host:\r\n"), ["GET / ", AND_NEXT]),
    "two Hosts": Case("3.2", get(fields=b"Host: h\r\nHost: h\r\n"), [400]),
    "two Hosts in 1.0": Case("3.2", get(b"GET / HTTP/1.0", b"Host: a\r\nhost: b\r\n"), [400]),
    "Host with a path": Case("3.2", get(fields=b"Host: h/x\r\n"), [400]),
    "Host with a space": Case("3.2", get(fields=b"Host: h x\r\n"), [400]),
    "Host with a user": Case("3.2", get(fields=b"Host: u@h\r\n"), [400]),
    "Host with a port that is none": Case("3.2", get(fields=b"Host: h:8x\r\n"), [400]),
    "Host with quotes": Case("3.2", get(fields=b'Host: "h"\r\n'), [400]),
    "Host with bytes beyond ASCII": Case("3.2", get(fields=b"Host: \xe4\r\n"), [400]),
    "Host with a port": Case("3.2", get(fields=b"Host: a_b-c.example:8000\r\n"), ["GET / ", AND_NEXT]),
    "Host that is IPv6": Case("3.2", get(fields=b"Host: [::1]:8000\r\n"), ["GET / ", AND_NEXT]),
    "Host that is half IPv6": Case("3.2", get(fields=b"Host: [::1\r\n"), [400]),
    # -- fields
    "white space before the colon": Case("5.1", get(fields=b"Host: h\r\nX : a\r\n"), [400]),
    "white space around a value": Case("5.1", get(fields=b"Host: \t h \t \r\n"), ["GET / ", AND_NEXT]),
    "a field without a colon": Case("5", get(fields=b"Host: h\r\nX\r\n"), [400]),
    "a field without a name": Case("5", get(fields=b"Host: h\r\n: a\r\n"), [400]),
    "a name that is no token": Case("5, 9110 5.1", get(fields=b"Host: h\r\nX[]: a\r\n"), [400]),
    "a folded field": Case("5.2", get(fields=b"Host: h\r\nX: a\r\n b\r\n"), [400]),
    "a folded Content-Length": Case("5.2", post(b"Content-Length:\r\n 3\r\n", b"abc"), [400]),
    "a folded Transfer-Encoding": Case(
        "5.2", post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), [400]
    ),
    "NUL in a value": Case("9110 5.5", get(fields=b"Host: h\r\nX: a\0b\r\n"), [400]),
    "DEL in a value": Case("9110 5.5", get(fields=b"Host: h\r\nX: a\x7fb\r\n"), [400]),
    "a control in a value": Case("9110 5.5", get(fields=b"Host: h\r\nX: a\x01b\r\n"), [400]),
    "bytes beyond ASCII in a value": Case(
        "9110 5.5", get(fields=b"Host: h\r\nX: \xe4\r\n"), ["GET / ", AND_NEXT]
    ),
    "an empty value": Case("9110 5.5", get(fields=b"Host: h\r\nX:\r\n"), ["GET / ", AND_NEXT]),
    "a field that is too large": Case(
        "9110 5.4", get(fields=b"Host: h\r\nX: " + b"a" * HEAD_LIMIT + b"\r\n"), [431]
    ),
    "too many fields": Case("9110 5.4", get(fields=b"Host: h\r\n" + b"X: a\r\n" * FIELDS_LIMIT), [431]),
    "as many fields as may be": Case(
        "9110 5.4", get(fields=b"Host: h\r\n" + b"X: a\r\n" * (FIELDS_LIMIT - 1)), ["GET / ", AND_NEXT]
    ),
    "a target that is too long": Case("3", get(b"GET /" + b"a" * HEAD_LIMIT + b" HTTP/1.1"), [431]),
    # -- Content-Length
    "a body of that length": Case("6.2", post(b"Content-Length: 3\r\n", b"abc"), ["POST /p abc", AND_NEXT]),
    "an empty body": Case("6.2", post(b"Content-Length: 0\r\n"), ["POST /p ", AND_NEXT]),
    "no length and no coding": Case("6.3", post(b""), ["POST /p ", AND_NEXT]),
    "two equal lengths": Case("6.3", post(b"Content-Length: 3\r\nContent-Length: 3\r\n", b"abc"), [400]),
    "two lengths": Case("6.3", post(b"Content-Length: 3\r\nContent-Length: 0\r\n", b"abc"), [400]),
    "a list of lengths": Case("6.3", post(b"Content-Length: 3, 3\r\n", b"abc"), [400]),
    "a length with a sign": Case("6.2", post(b"Content-Length: +3\r\n", b"abc"), [400]),
    "a length below zero": Case("6.2", post(b"Content-Length: -1\r\n"), [400]),
    "a length in hex": Case("6.2", post(b"Content-Length: 0x3\r\n", b"abc"), [400]),
    "a length with a space": Case("6.2", post(b"Content-Length: 3 0\r\n", b"abc"), [400]),
    "a length with an underscore": Case("6.2", post(b"Content-Length: 1_0\r\n", b"abc"), [400]),
    "a length with a point": Case("6.2", post(b"Content-Length: 3.0\r\n", b"abc"), [400]),
    "an empty length": Case("6.2", post(b"Content-Length: \r\n"), [400]),
    "a length beyond 64 bits": Case("6.2", post(b"Content-Length: 18446744073709551619\r\n", b"abc"), [400]),
    "a body at a GET": Case(
        "9110 9.3.1",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 30\r\n\r\n" + SMUGGLED[:30],
        ["GET / " + SMUGGLED[:30].decode(), AND_NEXT],
    ),
    # -- Transfer-Encoding
    "CL.TE": Case(
        "6.3", post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED), [400]
    ),
    "TE.CL": Case(
        "6.3", post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n" + SMUGGLED), [400]
    ),
    "TE.TE, the second hides": Case(
        "6.3", post(b"Transfer-Encoding: chunked\r\nTransfer-encoding: x\r\n", b"0\r\n\r\n" + SMUGGLED), [400]
    ),
    "TE.TE, the first hides": Case(
        "6.3", post(b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED), [501]
    ),
    "chunked twice": Case(
        "7", post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n" + SMUGGLED), [400]
    ),
    "chunked and not last": Case("6.3", post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"), [400]),
    "another coding": Case("6.1", post(b"Transfer-Encoding: gzip\r\n", b"x"), [400]),
    "another coding and chunked": Case(
        "6.1", post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), [501]
    ),
    "identity": Case("6.1", post(b"Transfer-Encoding: identity\r\n", b"x"), [400]),
    "an empty coding": Case("6.1", post(b"Transfer-Encoding:\r\n", b"x"), [400]),
    "a coding with a vertical tab": Case(
        "6.1", post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), [400]
    ),
    "a quoted coding": Case("6.1", post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), [400]),
    "a coding with a parameter": Case(
        "6.1", post(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"), [400]
    ),
    "a coding that begins with chunked": Case(
        "6.1", post(b"Transfer-Encoding: chunkedx\r\n", b"0\r\n\r\n"), [400]
    ),
    "a coding in capitals": Case(
        "6.1", post(b"TRANSFER-ENCODING: CHUNKED\r\n", b"0\r\n\r\n"), ["POST /p ", AND_NEXT]
    ),
    "a coding in 1.0": Case("6.1", b"POST /p HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
    # -- chunks
    "chunks": Case("7.1", chunked(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), ["POST /p abc", AND_NEXT]),
    "sizes in hex": Case(
        "7.1",
        chunked(b"A\r\n0123456789\r\nb\r\n0123456789X\r\n0\r\n\r\n"),
        ["POST /p 01234567890123456789X", AND_NEXT],
    ),
    "zeros in front of a size": Case(
        "7.1", chunked(b"0003\r\nabc\r\n000\r\n\r\n"), ["POST /p abc", AND_NEXT]
    ),
    "no size": Case("7.1", chunked(b"\r\nabc\r\n0\r\n\r\n"), [400]),
    "a size with a prefix": Case("7.1", chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), [400]),
    "a size with a sign": Case("7.1", chunked(b"+3\r\nabc\r\n0\r\n\r\n"), [400]),
    "a size below zero": Case("7.1", chunked(b"-1\r\n\r\n0\r\n\r\n"), [400]),
    "a size with white space in front": Case("7.1", chunked(b" 3\r\nabc\r\n0\r\n\r\n"), [400]),
    "a size with white space behind": Case("7.1", chunked(b"3 \r\nabc\r\n0\r\n\r\n"), [400]),
    "a size beyond 64 bits": Case("7.1", chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n"), [400]),
    "a size that is no number": Case("7.1", chunked(b"x\r\nabc\r\n0\r\n\r\n"), [400]),
    "a chunk is longer than its size": Case("7.1", chunked(b"2\r\nabc\r\n0\r\n\r\n"), [400]),
    "a chunk shorter than it said": Case("7.1", chunked(b"4\r\nabc\r\n0\r\n\r\n"), [400]),
    "bare LF behind a size": Case("7.1", chunked(b"3\nabc\r\n0\r\n\r\n"), [400]),
    "bare LF behind a chunk": Case("7.1", chunked(b"3\r\nabc\n0\r\n\r\n"), [400]),
    "bare CR behind a size": Case("7.1", chunked(b"3\rabc\r\n0\r\n\r\n"), [400]),
    "an extension": Case("7.1.1", chunked(b'3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n'), ["POST /p abc", AND_NEXT]),
    "an extension that ends in a bare LF": Case("7.1.1", chunked(b"3;a\nabc\r\n0\r\n\r\n"), [400]),
    "an extension with a bare CR": Case("7.1.1", chunked(b"3;a\rb\r\nabc\r\n0\r\n\r\n"), [400]),
    "an extension with NUL": Case("7.1.1", chunked(b"3;a\0b\r\nabc\r\n0\r\n\r\n"), [400]),
    "trailers": Case("7.1.2", chunked(b"0\r\nX: a\r\nY: b\r\n\r\n"), ["POST /p ", AND_NEXT]),
    "a trailer that frames": Case(
        "7.1.2, 9110 6.5.1", chunked(b"0\r\nContent-Length: 30\r\n\r\n" + SMUGGLED), [400]
    ),
    "a trailer that is none": Case("7.1.2", chunked(b"0\r\nX\r\n\r\n"), [400]),
    "a folded trailer": Case("7.1.2", chunked(b"0\r\nX: a\r\n b\r\n\r\n"), [400]),
    "bare LF behind the last chunk": Case("7.1", chunked(b"0\r\n\n" + SMUGGLED), [400]),
    # -- the connection
    "close": Case("9.6", get(fields=b"Host: h\r\nConnection: close\r\n"), ["GET / "]),
    "close among others": Case("9.6", get(fields=b"Host: h\r\nConnection: x, Close\r\n"), ["GET / "]),
    "1.0": Case("9.3", get(b"GET / HTTP/1.0"), ["GET / "]),
    # Persistence of 1.0 is an option that would have to be granted in the answer.
    "1.0 that would stay": Case("9.3", get(b"GET / HTTP/1.0", b"Connection: keep-alive\r\n"), ["GET / "]),
    "an upgrade that is not offered": Case(
        "9110 7.8", get(fields=b"Host: h\r\nConnection: upgrade\r\nUpgrade: x\r\n"), ["GET / ", AND_NEXT]
    ),
    "an upgrade with a body": Case(
        "9110 7.8",
        post(b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n", b"abc"),
        ["POST /p abc", AND_NEXT],
    ),
    "Expect": Case(
        "9110 10.1.1",
        post(b"Expect: 100-continue\r\nContent-Length: 3\r\n", b"abc"),
        ["POST /p abc", AND_NEXT],
    ),
}


def screen(request: ClientRequest) -> Reply | None:
    request.endpoint = endpoint(request.path)
    return None


def outcome(data: bytes, step: int) -> list[str | int]:
    reader = RequestParser(ParserRules(screen, lambda: b"id", lambda: 0.0, 1000), False)
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
    found: list[str | int] = []
    for number, request in enumerate(reader.ready):
        if number and not reader.ready[number - 1].keep_alive:
            break  # the connection answers what was the last, and closes
        if request.reply is not None:
            found.append(request.reply.status)
            assert not request.keep_alive
        else:
            found.append(b" ".join((request.method, request.path, request.body)).decode("latin-1"))
    return found


@pytest.mark.parametrize("name", CASES)
def test_each_request_is_judged_as_it_is_written(name: str) -> None:
    case = CASES[name]
    data = case.data + NEXT
    assert outcome(data, len(data)) == case.expected, case.paragraph
    assert outcome(data, 1) == case.expected, case.paragraph
