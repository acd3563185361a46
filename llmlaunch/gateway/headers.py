"""Which header fields pass the gateway, and what is added. Pure.

Hop-by-hop fields end here (RFC 9110 §7.6.1, and whatever ``Connection`` names). So do credentials: a client's key is
for this gateway and no worker's business. Fields by which a client could claim another address are dropped too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmlaunch.gateway.framing import Head

Fields = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_NOT_TO_WORKERS = _HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"http2-settings", b"x-request-id",
    b"authorization", b"proxy-authorization", b"cookie", b"api-key", b"x-api-key",
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


def to_worker(
    path: bytes,
    host: bytes,
    fields: Fields,
    identity: bytes,
    body: bytes,
    named: frozenset[bytes],
    plain: bool,
) -> bytes:
    """The whole request for a worker. ``fields`` have lower-case names; ``plain`` asks for an uncompressed answer."""
    lines = [
        b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
        % (path, host, len(body), identity)
    ]
    dropped = _NOT_TO_WORKERS | named if named else _NOT_TO_WORKERS
    if plain:
        dropped |= {b"accept-encoding"}
    lines += [b"%b: %b\r\n" % field for field in fields if field[0] not in dropped]
    lines.append(b"\r\n")
    lines.append(body)
    return b"".join(lines)


def to_client(head: Head, identity: bytes, extra: bytes, framing: bytes) -> bytes:
    """The head of an answer as the client gets it. ``framing`` says length and connection, ``extra`` is whole lines."""
    lines = [b"HTTP/1.1 %d %b\r\nx-request-id: %b\r\n" % (head.status, head.reason, identity)]
    named = named_by_connection(head.get(b"connection"))
    for name, value in head.fields:
        if name in _NOT_TO_CLIENTS or name in named or name.startswith(b"access-control-"):
            continue
        lines.append(b"%b: %b\r\n" % (name, value))
    lines.append(extra)
    lines.append(framing)
    lines.append(b"\r\n")
    return b"".join(lines)
