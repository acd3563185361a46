"""The endpoints that the gateway answers itself: models, health, readiness, metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.paths import EndpointKind
from llmlaunch.gateway.request import ClientRequest
from llmlaunch.gateway.routing.router import Router

START_GRACE_S = 5.0
"""Seconds after the start for which a gateway is "starting" if no controller has answered."""


class Endpoints:
    """``now``: the monotonic time in seconds. ``metrics``: returns the page for Prometheus."""

    def __init__(
        self,
        router: Router,
        now: Callable[[], float],
        metrics: Callable[[], bytes],
        ollama: Callable[[ClientRequest], Reply] | None = None,
    ) -> None:
        self._ollama = ollama
        self._router = router
        self._now = now
        self._metrics = metrics
        self._started = now()
        self._created = int(time.time())
        self.warning = ""
        """A warning for operators, which /health reports and a supervisor shows."""
        self.broken = False
        """Another process of this gateway hangs and is not replaced, so some connections are never answered."""

    def answer(self, request: ClientRequest) -> Reply:
        """The reply to a request that needs no replica."""
        found = request.endpoint
        if found.kind is EndpointKind.MODELS:
            names = filter(request.api_key.limits.allows, self._router.table.names)
            return _json(200, {"object": "list", "data": [self._model(name) for name in names]})
        if found.kind is EndpointKind.MODEL:
            if not request.api_key.limits.allows(found.name):
                return errors.model_not_allowed(found.name)
            if found.name in self._router.table.serving:
                return _json(200, self._model(found.name))
            return self._router.not_served(found.name)
        if found.kind is EndpointKind.HEALTH:
            return self._health()
        if found.kind is EndpointKind.READY:
            ready = bool(self._router.table.serving)
            return _json(200 if ready else 503, {"status": "ready" if ready else "not ready"})
        if found.kind is EndpointKind.OLLAMA and self._ollama is not None:
            return self._ollama(request)
        return Reply(200, self._metrics(), content_type=b"text/plain; version=0.0.4; charset=utf-8")

    def _model(self, name: str) -> dict[str, object]:
        model: dict[str, object] = {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "llmlaunch",
        }
        length = self._router.table.max_model_len(name)
        return model if length is None else model | {"max_model_len": length}

    def _health(self) -> Reply:
        router = self._router
        table = router.table
        ready = table.ready_of_expected() if table.expected else len(table.serving)
        expected = len(table.expected) or ready
        up = router.controller_answered or bool(table.serving) or self._now() - self._started > START_GRACE_S
        if self.broken:
            status = "broken"
        elif not up:
            status = "starting"
        else:
            status = "ok" if ready == expected and router.controller_up else "degraded"
        value: dict[str, object] = {
            "status": status,
            "names_ready": ready,
            "names_expected": expected,
            "controller": "up" if router.controller_up else "down",
        }
        if self.warning:
            value["warning"] = self.warning
        return _json(200 if up and not self.broken else 503, value)


def _json(status: int, value: object) -> Reply:
    return Reply(status, json.dumps(value).encode())
