"""Checks of a request's head that llhttp leaves to its user: repeated fields, Host, Transfer-Encoding. Pure."""

from __future__ import annotations

import re

from llmlaunch.common.api_key_header import HEADERS
from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.request import Fields

_NOTED = frozenset(
    (b"host", b"connection", b"content-encoding", b"content-length", b"expect", b"origin", b"transfer-encoding",
     b"x-request-id", *HEADERS)
)  # fmt: skip
_ONCE = frozenset((b"host", b"content-length", *HEADERS))
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:._~%!$&'()*+,;=-]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]*)(?::[0-9]*)?")
"""Host and port as in RFC 3986 §3.2: nothing that could be taken for a path or a user name."""


def noted_fields(fields: Fields) -> tuple[dict[bytes, bytes], bytes]:
    """The fields that matter to the gateway, those with the same name joined by commas (RFC 9110 §5.3).

    Also returns the name of a field that must not be repeated but is; empty when there is none.
    """
    noted: dict[bytes, bytes] = {}
    doubled = b""
    for name, value in fields:
        if name in _NOTED:
            value = value.strip(b" \t")
            if name in noted:
                if name in _ONCE:
                    doubled = name
                value = noted[name] + b"," + value
            noted[name] = value
    return noted, doubled


def host_fault(noted: dict[bytes, bytes], doubled: bytes, http11: bool, known_host: bytes) -> Reply | None:
    """The reply to a request whose Host is not valid (RFC 9112 §3.2), or with a repeated field; None: they are fine.

    ``known_host``: a value that was checked before.
    """
    if doubled:
        return errors.malformed_http(f"{doubled.decode()} is given twice")
    host = noted.get(b"host")
    if host is None:
        return errors.malformed_http("an HTTP/1.1 request needs a Host") if http11 else None
    if host != known_host and _HOST.fullmatch(host) is None:
        return errors.malformed_http("its Host is not valid")
    return None


def framing_fault(noted: dict[bytes, bytes], version: str) -> Reply | None:
    """The reply to a request whose version or Transfer-Encoding is not supported (RFC 9112 §2.3 and §6); None: they are."""
    http11 = version == "1.1"
    if not http11 and version != "1.0":
        return errors.unsupported_http_version()
    coding = noted.get(b"transfer-encoding")
    if coding is None or (http11 and coding.lower() == b"chunked"):
        return None
    if not http11:
        return errors.malformed_http("HTTP/1.0 has no Transfer-Encoding")
    if coding.lower().rpartition(b",")[2].strip(b" \t") != b"chunked":
        return errors.malformed_http("its last Transfer-Encoding is not chunked")
    return errors.unsupported_transfer_encoding()


def path_and_query(target: bytes) -> tuple[bytes, bytes]:
    """Split a request target into path and query, also in absolute form (RFC 9112 §3.2.2)."""
    path, _, query = target.partition(b"?")
    if path.startswith(b"/") or b"://" not in path:
        return path, query
    return b"/" + path.partition(b"://")[2].partition(b"/")[2], query
