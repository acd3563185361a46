"""Restricts a worker to its own deployment: anyone on the machine can connect to its port.

Status endpoints (``PATHS_WITHOUT_KEY``) need no key: they are for the supervisor's probes, Prometheus, and people with curl.
"""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from llmlaunch.common.api_key_header import HEADERS, presented_key
from llmlaunch.worker.api.http import error_response
from llmlaunch.worker.errors import WrongKey

PATHS_WITHOUT_KEY = frozenset(("/health", "/ready", "/metrics"))


class RequireKey:
    """Passes requests with the key to ``app``, in any of the headers of ``api_key_header``; answers others with 401."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] == "http" and scope["path"] not in PATHS_WITHOUT_KEY and not self._has_key(scope):
            answer = error_response(
                WrongKey(
                    "this worker only accepts requests from its own deployment: use the deployment's endpoint"
                ),
                scope["path"],
            )
            answer.headers["WWW-Authenticate"] = "Bearer"
            answer.headers["X-Should-Retry"] = "false"
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        given = dict(reversed(scope["headers"]))  # the first of several with one name counts
        return hmac.compare_digest(presented_key(*(given.get(name, b"") for name in HEADERS)), self._key)
