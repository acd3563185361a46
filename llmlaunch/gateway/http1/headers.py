"""Which header fields pass through the gateway, and which are added. Pure.

Hop-by-hop fields are removed (RFC 9110 §7.6.1, and those that ``Connection`` names). So are credentials, which are meant
for the gateway alone, the fields in which a browser names its page, and those in which a client could claim another
address.
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
# Access-Control-* fields are removed as well: the gateway decides which pages may read a response.
_NOT_TO_CLIENTS = _HOP_BY_HOP | {b"proxy-authenticate", b"x-request-id", b"server", b"content-length"}
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


def request_id(value: bytes, generated: bytes) -> bytes:
    """The client's own request id if it is printable and at most 128 bytes long, else ``generated``."""
    return value if _REQUEST_ID.fullmatch(value) else generated


def named_by_connection(value: bytes) -> frozenset[bytes]:
    """The names of the fields that a ``Connection`` field declares hop-by-hop, in lower case."""
    return frozenset(token.strip() for token in value.lower().split(b",") if token.strip())


def for_worker(fields: Fields, named: frozenset[bytes], plain: bool) -> bytes:
    """The header lines of a request that are passed on to a worker.

    ``fields`` have names in lower case, ``named`` are the names in ``Connection``. ``plain``: without Accept-Encoding, so
    that the response is not compressed.
    """
    dropped = _NOT_TO_WORKERS | named if named else _NOT_TO_WORKERS
    if plain:
        dropped |= {b"accept-encoding"}
    return b"".join([b"%b: %b\r\n" % field for field in fields if field[0] not in dropped])


def onward(request: ClientRequest, plain: bool) -> bytes:
    """The header lines of ``request`` that are passed on to a worker. ``plain``: as in :func:`for_worker`."""
    if plain:
        return for_worker(request.fields, request.named_by_connection, plain=True)
    if request.lines is None:
        request.lines = for_worker(request.fields, request.named_by_connection, plain=False)
    return request.lines


def to_worker(method: bytes, path: bytes, own: bytes, lines: bytes, identity: bytes, length: int) -> bytes:
    """The head of a request as a worker gets it.

    ``own`` are the lines that belong to the connection, ``lines`` those of :func:`for_worker`. ``length`` is in bytes.
    """
    return b"%b %b HTTP/1.1\r\n%bcontent-length: %d\r\nx-request-id: %b\r\n%b\r\n" % (
        method, path, own, length, identity, lines,
    )  # fmt: skip


def for_client(fields: Fields, connection: bytes) -> bytes:
    """The header lines of a response that are passed on to a client; ``connection`` is the value of its ``Connection``."""
    named = named_by_connection(connection) if connection else frozenset()
    return b"".join(
        [
            b"%b: %b\r\n" % (name, value)
            for name, value in fields
            if not (name in _NOT_TO_CLIENTS or name in named or name.startswith(b"access-control-"))
        ]
    )


def with_content_type(lines: bytes, content_type: bytes) -> bytes:
    """``lines`` of :func:`for_client` with another Content-Type."""
    kept = [line for line in lines.splitlines(keepends=True) if not line.startswith(b"content-type:")]
    return b"".join(kept) + b"content-type: %b\r\n" % content_type


def to_client(status: int, reason: bytes, lines: bytes, identity: bytes, framing: bytes) -> bytes:
    """The head of a response as a client gets it.

    ``lines`` are those of :func:`for_client`; ``framing`` are the lines for the length and the connection.
    """
    return b"HTTP/1.1 %d %b\r\nx-request-id: %b\r\n%b%b\r\n" % (status, reason, identity, lines, framing)
