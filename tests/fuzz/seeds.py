"""What fuzzing starts from, and the words it puts in."""

from __future__ import annotations

import json

from tests.integration.gateway.test_http import HOSTILE
from tests.unit.gateway.http1.test_request_parser_rfc9112 import CASES, NEXT

PART = b"\n====\n"
"""Between a client's bytes and the answers to them, see ``machine``."""

CHAT = json.dumps({"model": "m", "messages": []}).encode()
ALIAS = json.dumps({"model": "alias", "stream": True, "messages": []}).encode()


def post(body: bytes, path: bytes = b"/v1/chat/completions", fields: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n%b" % (path, fields, len(body), body)


def chunks(*contents: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in contents) + b"0\r\n\r\n"


EVENTS = [b'data: {"model": "b", "choices": []}\n\n', b'data: {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}\n\n',
          b"data: [DONE]\n\n"]  # fmt: skip
ANSWERS = [
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"model": "b"}',
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunks(*EVENTS),
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + b"".join(EVENTS),
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{}",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nRetry-After: 1\r\n\r\n{}",
    b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5;a=b\r\nhello\r\n000\r\nx: y\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
]
REQUESTS = [
    *(case.data + NEXT for case in CASES.values() if len(case.data) < 2000),
    *HOSTILE.values(),
    post(CHAT) * 3,
    post(ALIAS) + post(CHAT),
    post(CHAT, fields=b"Expect: 100-continue\r\n"),
    post(CHAT, fields=b"Connection: upgrade\r\nUpgrade: h2c\r\n") * 2,
    b"GET /v1/models HTTP/1.1\r\nHost: h\r\n\r\nHEAD /health HTTP/1.1\r\nHost: h\r\n\r\nGET /metrics HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\n\r\n",
]
EXCHANGES = [
    *(post(CHAT) * 2 + PART + answer + PART + answer for answer in ANSWERS),
    *(post(ALIAS) + PART + answer for answer in ANSWERS),
    *(request + PART + ANSWERS[0] for request in REQUESTS[::7]),
    post(CHAT) + PART + PART + ANSWERS[0],
    post(CHAT).replace(b"1.1", b"1.0") + PART + ANSWERS[1],
]
WORDS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"\r\n\r\n", b"0\r\n\r\n", b"0", b"-1", b"+1", b"0x1", b"f" * 16,
    b"1", b"5\r\nhello\r\n", b"Content-Length: 5\r\n", b"content-length: 0\r\n", b"Content-Length: 99999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding: identity\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"Expect: 100-continue\r\n", b"Host: h\r\n", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"GET / HTTP/1.1\r\n",
    b"POST /v1/completions HTTP/1.1\r\n",
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b'"model"', b'{"model": "m"}', b"\xff", b"chunked", PART,
    b"Content-Type: text/event-stream\r\n", b"Content-Type: application/json\r\n", b"data: ", b"\n\n", b"data: [DONE]\n\n",
]  # fmt: skip
