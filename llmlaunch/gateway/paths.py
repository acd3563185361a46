"""The endpoints of the gateway's API, by path. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import unquote_to_bytes

from llmlaunch.gateway.dialects.dialect import Dialect


class EndpointKind(Enum):
    """How a request is answered: by a replica (PROXY, CHECK, RESPONSE), or by the gateway itself."""

    PROXY = auto()
    CHECK = auto()
    """Like PROXY, but each prompt names its model."""
    RESPONSE = auto()
    MODELS = auto()
    MODEL = auto()
    HEALTH = auto()
    READY = auto()
    METRICS = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class ApiEndpoint:
    """One endpoint of the API."""

    kind: EndpointKind
    methods: tuple[bytes, ...]
    label: str
    """The path as metrics name it."""
    needs_key: bool = True
    """It needs an API key, if the gateway has any."""
    upstream: bytes = b""
    """The path at the worker."""
    name: str = ""
    """The model or the response id that is a part of the path."""
    has_usage: bool = False
    """Its responses contain a token usage."""
    dialect: Dialect | None = None
    """The API that it belongs to; None: OpenAI's, or our own."""

    @property
    def allowed(self) -> str:
        """The value of ``Allow``."""
        return ", ".join(method.decode() for method in (*self.methods, b"OPTIONS"))


UNKNOWN: ApiEndpoint = ApiEndpoint(EndpointKind.UNKNOWN, (), "other")
_GET = (b"GET", b"HEAD")
_POST = (b"POST",)


def _proxy(path: str, upstream: str = "", *, has_usage: bool = True) -> ApiEndpoint:
    return ApiEndpoint(
        EndpointKind.PROXY, _POST, path, upstream=(upstream or path).encode(), has_usage=has_usage
    )


_PATHS: dict[bytes, ApiEndpoint] = {
    endpoint.label.encode(): endpoint
    for endpoint in (
        _proxy("/v1/chat/completions"),
        _proxy("/v1/completions"),
        _proxy("/v1/embeddings"),
        _proxy("/v1/responses"),
        _proxy("/v1/rerank"),
        _proxy("/v2/rerank"),
        _proxy("/rerank", "/v1/rerank"),
        _proxy("/v1/score"),
        _proxy("/score", "/v1/score"),
        _proxy("/tokenize", has_usage=False),
        _proxy("/detokenize", has_usage=False),
        # For FastChat's clients.
        _proxy("/api/v1/chat/completions", "/v1/chat/completions"),
        ApiEndpoint(EndpointKind.CHECK, _POST, "/api/v1/token_check", upstream=b"/api/v1/token_check"),
        ApiEndpoint(EndpointKind.MODELS, _GET, "/v1/models"),
        ApiEndpoint(EndpointKind.HEALTH, _GET, "/health", needs_key=False),
        ApiEndpoint(EndpointKind.READY, _GET, "/ready", needs_key=False),
        ApiEndpoint(EndpointKind.METRICS, _GET, "/metrics"),
    )
}
_MODEL = b"/v1/models/"
_RESPONSE = re.compile(rb"/v1/responses/([A-Za-z0-9_-]{1,200})")
_ENGINE, _ENGINE_END = b"/v1/engines/", b"/embeddings"


def endpoint(path: bytes) -> ApiEndpoint:
    """The endpoint of ``path``, which has no query; UNKNOWN if there is none."""
    found = _PATHS.get(path)
    if found is not None:
        return found
    if path.startswith(_MODEL) and len(path) > len(_MODEL):
        name = _text(path[len(_MODEL) :])
        return ApiEndpoint(EndpointKind.MODEL, _GET, "/v1/models/{id}", name=name) if name else UNKNOWN
    response = _RESPONSE.fullmatch(path)
    if response is not None:
        methods, identity = (b"GET", b"DELETE"), response[1].decode()
        return ApiEndpoint(EndpointKind.RESPONSE, methods, "/v1/responses/{id}", upstream=path, name=identity)
    if path.startswith(_ENGINE) and path.endswith(_ENGINE_END) and len(path) > len(_ENGINE + _ENGINE_END):
        name = _text(path[len(_ENGINE) : -len(_ENGINE_END)])
        if name:
            label = "/v1/engines/{model}/embeddings"
            return ApiEndpoint(
                EndpointKind.PROXY, _POST, label, upstream=b"/v1/embeddings", name=name, has_usage=True
            )
    return UNKNOWN


def _text(quoted: bytes) -> str:
    try:
        return unquote_to_bytes(quoted).decode()
    except UnicodeDecodeError:
        return ""
