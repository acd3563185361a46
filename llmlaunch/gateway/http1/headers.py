"""Which header fields pass the gateway, and what is added. Pure.

Hop-by-hop fields end here (RFC 9110 §7.6.1, and whatever ``Connection`` names). So do credentials: a client's key is
for this gateway and no worker's business, and so is which page a browser asks for. Fields by which a client could claim
another address are dropped too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmlaunch.gateway.request import ClientRequest

Fields = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_NOT_TO_WORKERS = _HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"http2-settings", b"x-request-id",
    b"authorization", b"proxy-authorization", b"cookie", b"api-key", b"x-api-key",
    b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"sec-fetch-user",
    b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip",
}  # fmt: skip
# Access-Control-*: who may read an answer is this gateway's decision, never a worker's.
_NOT_TO_CLIENTS = _HOP_BY_HOP | {b"proxy-authenticate", b"x-request-id", b"server", b"content-length"}
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


def request_id(value: bytes, generated: bytes) -> bytes:
    """The client's own id when it is printable and short, else ``generated``."""
    return value if _REQUEST_ID.fullmatch(value) else generated


def named_by_connection(value: bytes) -> frozenset[bytes]:
    """The fields that a ``Connection`` header declares hop-by-hop, lower case."""
    return frozenset(token.strip() for token in value.lower().split(b",") if token.strip())


def for_worker(fields: Fields, named: frozenset[bytes], plain: bool) -> bytes:
    """The lines of a request that go on to a worker. ``fields`` have lower-case names, ``named`` are those that
    ``Connection`` names; ``plain`` asks for an uncompressed answer."""
    dropped = _NOT_TO_WORKERS | named if named else _NOT_TO_WORKERS
    if plain:
        dropped |= {b"accept-encoding"}
    return b"".join([b"%b: %b\r\n" % field for field in fields if field[0] not in dropped])


def onward(request: ClientRequest, plain: bool) -> bytes:
    """The lines of the head of ``request`` that go on to a worker. ``plain``: ask for an uncompressed answer."""
    if plain:
        return for_worker(request.fields, request.named_by_connection, plain=True)
    if request.lines is None:
        request.lines = for_worker(request.fields, request.named_by_connection, plain=False)
    return request.lines


def to_worker(method: bytes, path: bytes, own: bytes, lines: bytes, identity: bytes, length: int) -> bytes:
    """The head of a request as a worker gets it. ``own`` are the lines of its connection, ``lines`` those of
    :func:`for_worker`."""
    return b"%b %b HTTP/1.1\r\n%bcontent-length: %d\r\nx-request-id: %b\r\n%b\r\n" % (
        method, path, own, length, identity, lines,
    )  # fmt: skip


def for_client(fields: Fields, connection: bytes) -> bytes:
    """The lines of an answer that go on to a client; ``connection`` is the value of its ``Connection``."""
    named = named_by_connection(connection) if connection else frozenset()
    return b"".join(
        [
            b"%b: %b\r\n" % (name, value)
            for name, value in fields
            if not (name in _NOT_TO_CLIENTS or name in named or name.startswith(b"access-control-"))
        ]
    )


def to_client(status: int, reason: bytes, lines: bytes, identity: bytes, framing: bytes) -> bytes:
    """The head of an answer as a client gets it. ``lines`` are whole ones; ``framing`` says length and connection."""
    return b"HTTP/1.1 %d %b\r\nx-request-id: %b\r\n%b%b\r\n" % (status, reason, identity, lines, framing)
