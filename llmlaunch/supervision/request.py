"""One HTTP request to a process of the deployment, for probes and the registrar, with short error messages."""

from __future__ import annotations

import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from llmlaunch.common import http_client
from llmlaunch.common.http_client import Response
from llmlaunch.errors import LlmlaunchError

_MOST_BYTES = 1 << 20


class RequestFailed(LlmlaunchError):
    """No answer came. The message says why, briefly: "connection refused"."""

    code = "request"


class NoAnswer(RequestFailed):
    """Something listens there, and sent no answer, or only a part of it: it may be busy."""

    def __init__(self, message: str, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


async def request(
    method: str, url: str, body: Any = None, *, token: str = "", timeout_s: float = 2.0
) -> Response:
    """Send one request. Raises RequestFailed if no complete answer came within ``timeout_s`` seconds; NoAnswer if one still might.

    Only the first MiB of a body is read.
    """
    parts = urlsplit(url)
    try:
        return await http_client.ask(
            parts.hostname or "",
            parts.port or 80,
            method,
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            timeout_s=timeout_s,
            body_limit=_MOST_BYTES,
            cut=True,
            content=b"" if body is None else json.dumps(body).encode(),
            token=token,
            tls=_unverified() if parts.scheme == "https" else None,
        )
    except http_client.TimedOut:
        raise NoAnswer(f"no answer within {timeout_s:g} s", timed_out=True) from None
    except http_client.CannotConnect as error:
        if error.reset:
            raise NoAnswer("the connection was closed") from None
        raise RequestFailed("connection refused" if error.refused else error.reason) from None
    except (http_client.ConnectionBroke, http_client.TooLarge):
        raise NoAnswer("the connection was closed") from None
    except http_client.InvalidAnswer:
        raise RequestFailed("the response is not HTTP") from None


def _unverified() -> ssl.SSLContext:
    """For probes of our own API server: its certificate names the host that clients use, not the one we reach it by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
