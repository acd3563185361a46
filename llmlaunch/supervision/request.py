"""One small HTTP request, for probes and the controller: asyncio streams, no client library in the supervisor's memory.

Speaks HTTP/1.0 (RFC 1945), so that a server answers without chunks and closes when it has said all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmlaunch.errors import LlmlaunchError

if TYPE_CHECKING:
    import ssl

_MOST_BYTES = 1 << 20


class RequestFailed(LlmlaunchError):
    """No answer came. The message says why in a few words: "connection refused"."""

    code = "request"


class NoAnswer(RequestFailed):
    """Somebody listens there, and said nothing, or not all: it may be busy."""

    def __init__(self, message: str, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON; None when it is something else."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


async def request(
    method: str, url: str, body: Any = None, *, token: str = "", timeout_s: float = 2.0
) -> Response:
    """Ask once. Raises RequestFailed when no complete answer came within ``timeout_s`` seconds; NoAnswer if one still might."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _exchange(method, url, body, token)
    except TimeoutError:
        raise NoAnswer(f"no answer within {timeout_s:g} s", timed_out=True) from None
    except ConnectionRefusedError:
        raise RequestFailed("connection refused") from None
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        raise NoAnswer("the connection was closed") from None
    except ValueError:
        raise RequestFailed("the response is not HTTP") from None
    except OSError as error:
        raise RequestFailed(error.strerror or str(error)) from None


async def _exchange(method: str, url: str, body: Any, token: str) -> Response:
    parts = urlsplit(url)
    context = _unverified() if parts.scheme == "https" else None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, ssl=context)
    try:
        data = b"" if body is None else json.dumps(body).encode()
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {path or '/'} HTTP/1.0", f"Host: {parts.netloc}", "Accept: application/json"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await writer.drain()
        return await _answer(reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _unverified() -> ssl.SSLContext:
    """For probes of our own API server: its certificate names the host that clients use, not the one we reach it by."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _answer(reader: asyncio.StreamReader) -> Response:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    protocol, status, *_ = head[0].split(" ")
    if not protocol.startswith("HTTP/"):
        raise ValueError(head[0])
    length = _MOST_BYTES
    for line in head[1:]:
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-length":
            length = min(int(value), _MOST_BYTES)
    body = b""
    while len(body) < length and (chunk := await reader.read(length - len(body))):
        body += chunk
    return Response(int(status), body)
