"""Restricts a worker to its own deployment: anybody on the machine can connect to its port.

Status endpoints (``OPEN``) need no key: they are for the supervisor's probes, Prometheus, and people with curl.
"""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from llmlaunch.worker.api.http import refusal
from llmlaunch.worker.errors import WrongKey

OPEN = frozenset(("/health", "/ready", "/metrics"))


class RequireKey:
    """Passes requests with ``Authorization: Bearer KEY`` to ``app``; answers others with 401."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN and not self._shown(scope):
            answer = refusal(
                WrongKey(
                    "this worker only accepts requests from its own deployment: use the deployment's endpoint"
                )
            )
            answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _shown(self, scope: Scope) -> bool:
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(shown, self._expected)
