"""A small HTTP client for the few calls to the controller: one connection a call, everything bounded.

httpx would do, at twenty times the memory of the rest of this process.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from llmlaunch.gateway.http1.framing import HEAD_LIMIT, BodyFraming, InvalidResponse, parse_head

ANSWER_LIMIT = 64 << 20


async def call(
    host: str, port: int, method: str, path: str, *, token: str, body: object = None, timeout_s: float
) -> tuple[int, Any]:
    """The status and the JSON value of the answer (None when it is no JSON).

    Raises OSError when nobody answers within ``timeout_s`` seconds, InvalidResponse when what comes is no HTTP.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port, limit=HEAD_LIMIT)
        try:
            writer.write(_request(host, port, method, path, token, body))
            return await _answer(reader)
        finally:
            writer.transport.abort()


def _request(host: str, port: int, method: str, path: str, token: str, body: object) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [
        f"{method} {path} HTTP/1.1",
        f"host: {authority}",
        "connection: close",
        "accept: application/json",
    ]
    if token:
        lines.append(f"authorization: Bearer {token}")
    if content:
        lines += ["content-type: application/json", f"content-length: {len(content)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


async def _answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    try:
        head = parse_head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.LimitOverrunError:
        raise InvalidResponse("its head is too large") from None
    except asyncio.IncompleteReadError:
        raise ConnectionResetError("the connection closed before an answer") from None
    body, content, size = BodyFraming(head), [], 0
    while not body.done:
        data = await reader.read(1 << 16)
        if not data:
            if not body.until_close:
                raise ConnectionResetError("the connection closed within an answer")
            break
        content.append(body.decode(data))
        size += len(data)
        if size > ANSWER_LIMIT:
            raise InvalidResponse("its answer is too large")
    try:
        return head.status, json.loads(b"".join(content))
    except ValueError:
        return head.status, None
