"""The endpoints of Ollama's API that need no replica: which models there are, and what cannot be done to them.

Ollama's library is the manifest here. ``/api/pull`` succeeds for a model that is served, because many clients pull before they
ask; nothing can be created, copied, deleted or pushed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.ollama.dialect import JSON, LINES
from llmlaunch.gateway.ollama.fields import flag, text
from llmlaunch.gateway.ollama.stream_translation import line
from llmlaunch.gateway.ollama.timing import date
from llmlaunch.gateway.payload.model_field import InvalidBody, dump, parse
from llmlaunch.gateway.request import ClientRequest
from llmlaunch.gateway.routing.model_tags import untagged
from llmlaunch.gateway.routing.router import Router

VERSION = "0.13.0"
"""The version of Ollama whose API this is: clients refuse to speak to one that is too old."""
_NEVER = "9999-12-31T23:59:59Z"
_CAPABILITIES = {"embed": ["embedding"], "rerank": [], "audio": []}
_GENERATES = ["completion", "tools"]
_REFUSED = "{} is not supported: the models of this server are those of its manifest. Change that, and run llmlaunch up again."


class OllamaEndpoints:
    """``started``: when the gateway started, in seconds since 1970."""

    def __init__(self, router: Router, started: float) -> None:
        self._router = router
        self._started = date(started)
        self._answers: dict[str, Callable[[ClientRequest], Reply]] = {
            "/": lambda _: Reply(200, b"Ollama is running", content_type=b"text/plain; charset=utf-8"),
            "/api/version": lambda _: _json({"version": VERSION}),
            "/api/tags": self._tags,
            "/api/ps": self._loaded,
            "/api/show": self._show,
            "/api/pull": self._pull,
        }

    def answer(self, request: ClientRequest) -> Reply:
        """The reply to a request for one of these endpoints."""
        found = self._answers.get(request.endpoint.label)
        if found is None:
            return errors.bad_request(_REFUSED.format(request.endpoint.label))
        try:
            return found(request)
        except InvalidBody as error:
            return errors.bad_request(error.message, error.param)

    def _tags(self, request: ClientRequest) -> Reply:
        return _json({"models": [self._row(name) for name in self._names(request)]})

    def _loaded(self, request: ClientRequest) -> Reply:
        rows = [
            {key: value for key, value in self._row(name).items() if key != "modified_at"}
            | {"expires_at": _NEVER, "size_vram": 0}
            | self._context_length(name, "context_length")
            for name in self._names(request)
        ]
        return _json({"models": rows})

    def _show(self, request: ClientRequest) -> Reply:
        found = self._named(request, parse(request.body))
        if isinstance(found, Reply):
            return found
        kind = self._router.table.serving[found][0].kind
        value: dict[str, Any] = {
            "modelfile": "",
            "parameters": "",
            "template": "",
            "details": _details(),
            # Clients look for the context length under the name of the architecture.
            "model_info": {"general.architecture": "unknown", "general.basename": found}
            | self._context_length(found, "unknown.context_length"),
            "capabilities": _CAPABILITIES.get(kind, _GENERATES),
            "modified_at": self._started,
        }
        return _json(value)

    def _pull(self, request: ClientRequest) -> Reply:
        body = parse(request.body)
        found = self._named(request, body)
        if isinstance(found, Reply):
            return found
        if not flag(body, "stream", True):
            return _json({"status": "success"})
        lines = line({"status": "pulling manifest"}) + line({"status": "success"})
        return Reply(200, lines, content_type=LINES)

    def _context_length(self, name: str, key: str) -> dict[str, int]:
        length = self._router.table.max_model_len(name)
        return {} if length is None else {key: length}

    def _names(self, request: ClientRequest) -> list[str]:
        return [name for name in self._router.table.names if request.api_key.limits.allows(name)]

    def _named(self, request: ClientRequest, body: dict[str, Any]) -> str | Reply:
        """The served name that ``body`` asks for, or why there is none."""
        name = text(body, "model") or text(body, "name")
        if not name:
            raise InvalidBody("model is missing.", "model")
        name = untagged(name, self._router.table)
        if not request.api_key.limits.allows(name):
            return errors.model_not_allowed(name)
        return name if name in self._router.table.serving else self._router.not_served(name)

    def _row(self, name: str) -> dict[str, Any]:
        """What is known of a model here. Of its files nothing is: their size counts as 0."""
        return {
            "name": name,
            "model": name,
            "modified_at": self._started,
            "size": 0,
            # Clients show the first 12 characters, and take it for the model's identity.
            "digest": hashlib.sha256(name.encode()).hexdigest(),
            "details": _details(),
        }


def _details() -> dict[str, Any]:
    names = ("parent_model", "format", "family", "parameter_size", "quantization_level")
    return dict.fromkeys(names, "") | {"families": []}


def _json(value: object) -> Reply:
    return Reply(200, dump(value), content_type=JSON)
