"""The gateway's own small calls: one question, one JSON value."""

from __future__ import annotations

import json
from typing import Any

from llmlaunch.common import http_client
from llmlaunch.gateway.http1.framing import InvalidResponse

ANSWER_LIMIT = 64 << 20


async def call(
    host: str, port: int, method: str, path: str, *, token: str, body: object = None, timeout_s: float
) -> tuple[int, Any]:
    """The status and the JSON value of the answer (None when it is not JSON).

    Raises OSError when nobody answers within ``timeout_s`` seconds, InvalidResponse when what comes is not HTTP.
    """
    content = b"" if body is None else json.dumps(body).encode()
    try:
        answer = await http_client.ask(
            host,
            port,
            method,
            path,
            timeout_s=timeout_s,
            body_limit=ANSWER_LIMIT,
            content=content,
            token=token,
        )
    except http_client.CannotConnect as error:
        raise error.cause from None  # where nobody listens, no replica died of a request
    except http_client.InvalidAnswer as error:
        raise InvalidResponse(str(error)) from None
    return answer.status, answer.json()
