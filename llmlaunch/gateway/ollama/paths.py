"""The endpoints of Ollama's API, by path. Pure."""

from __future__ import annotations

from llmlaunch.gateway.ollama.dialect import OllamaEmbedding, OllamaErrors, OllamaGeneration
from llmlaunch.gateway.ollama.request_translation import CHAT, EMBEDDINGS
from llmlaunch.gateway.ollama.timing import Clocks
from llmlaunch.gateway.paths import ApiEndpoint, EndpointKind, without_spare_slashes

_GET, _POST = (b"GET", b"HEAD"), (b"POST",)
_LOCAL = {
    "/api/version": _GET,
    "/api/tags": _GET,
    "/api/ps": _GET,
    "/api/show": _POST,
    "/api/pull": _POST,
    "/api/push": _POST,
    "/api/create": _POST,
    "/api/copy": _POST,
    "/api/delete": (b"DELETE",),
}


def endpoints(clocks: Clocks) -> dict[bytes, ApiEndpoint]:
    """Path (see ``paths.without_spare_slashes``) → endpoint."""
    chat, generate = OllamaGeneration(clocks, chat=True), OllamaGeneration(clocks, chat=False)
    embed, embeddings = OllamaEmbedding(clocks, many=True), OllamaEmbedding(clocks, many=False)
    kind, errors = EndpointKind.OLLAMA, OllamaErrors()
    found = [
        _translated("/api/chat", CHAT, chat),
        _translated("/api/generate", CHAT, generate),
        _translated("/api/embed", EMBEDDINGS, embed),
        _translated("/api/embeddings", EMBEDDINGS, embeddings),
        ApiEndpoint(kind, _GET, "/", needs_key=False),
        *(ApiEndpoint(kind, methods, path, dialect=errors) for path, methods in _LOCAL.items()),
    ]
    return {without_spare_slashes(one.label.encode()): one for one in found}


def _translated(path: str, upstream: bytes, dialect: OllamaGeneration | OllamaEmbedding) -> ApiEndpoint:
    return ApiEndpoint(
        EndpointKind.PROXY,
        _POST,
        path,
        upstream=upstream,
        has_usage=True,
        dialect=dialect,
        own_reply=dialect.own_reply,
        has_tags=True,
    )
