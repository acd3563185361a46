"""A client's request once its head is read, and where its path leads. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any
from urllib.parse import unquote_to_bytes

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.http1.headers import for_worker
from llmlaunch.gateway.limits.rates import Grant

Fields = list[tuple[bytes, bytes]]


class EndpointKind(Enum):
    PROXY = auto()
    CHECK = auto()
    """As PROXY, and the models stand in a list."""
    RESPONSE = auto()
    MODELS = auto()
    MODEL = auto()
    HEALTH = auto()
    READY = auto()
    METRICS = auto()
    NOWHERE = auto()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a path leads."""

    kind: EndpointKind
    methods: tuple[bytes, ...]
    label: str
    """The path as metrics name it."""
    guarded: bool = True
    """An API key is needed when there are any."""
    upstream: bytes = b""
    """The path at the worker."""
    name: str = ""
    """The model that the path itself names, or the response."""
    metered: bool = False
    """Its answers tell what tokens they took."""

    @property
    def allowed(self) -> str:
        return ", ".join(method.decode() for method in (*self.methods, b"OPTIONS"))


NOBODY = Grant("")
NOWHERE = Endpoint(EndpointKind.NOWHERE, (), "other")
_GET = (b"GET", b"HEAD")
_POST = (b"POST",)


def _proxy(path: str, upstream: str = "", *, metered: bool = True) -> Endpoint:
    return Endpoint(EndpointKind.PROXY, _POST, path, upstream=(upstream or path).encode(), metered=metered)


_PATHS: dict[bytes, Endpoint] = {
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
        _proxy("/tokenize", metered=False),
        _proxy("/detokenize", metered=False),
        # FastChat's clients know these two.
        _proxy("/api/v1/chat/completions", "/v1/chat/completions"),
        Endpoint(EndpointKind.CHECK, _POST, "/api/v1/token_check", upstream=b"/api/v1/token_check"),
        Endpoint(EndpointKind.MODELS, _GET, "/v1/models"),
        Endpoint(EndpointKind.HEALTH, _GET, "/health", guarded=False),
        Endpoint(EndpointKind.READY, _GET, "/ready", guarded=False),
        Endpoint(EndpointKind.METRICS, _GET, "/metrics"),
    )
}
_MODEL = b"/v1/models/"
_RESPONSE = re.compile(rb"/v1/responses/([A-Za-z0-9_-]{1,200})")
_ENGINE, _ENGINE_END = b"/v1/engines/", b"/embeddings"


def endpoint(path: bytes) -> Endpoint:
    """What stands at ``path`` (without its query); NOWHERE when nothing does."""
    found = _PATHS.get(path)
    if found is not None:
        return found
    if path.startswith(_MODEL) and len(path) > len(_MODEL):
        name = _text(path[len(_MODEL) :])
        return Endpoint(EndpointKind.MODEL, _GET, "/v1/models/{id}", name=name) if name else NOWHERE
    response = _RESPONSE.fullmatch(path)
    if response is not None:
        methods, identity = (b"GET", b"DELETE"), response[1].decode()
        return Endpoint(EndpointKind.RESPONSE, methods, "/v1/responses/{id}", upstream=path, name=identity)
    if path.startswith(_ENGINE) and path.endswith(_ENGINE_END) and len(path) > len(_ENGINE + _ENGINE_END):
        name = _text(path[len(_ENGINE) : -len(_ENGINE_END)])
        if name:
            label = "/v1/engines/{model}/embeddings"
            return Endpoint(
                EndpointKind.PROXY, _POST, label, upstream=b"/v1/embeddings", name=name, metered=True
            )
    return NOWHERE


def _text(quoted: bytes) -> str:
    try:
        return unquote_to_bytes(quoted).decode()
    except UnicodeDecodeError:
        return ""


@dataclass(slots=True)
class ClientRequest:
    """One request of one client."""

    method: bytes
    path: bytes
    query: bytes
    http11: bool
    keep_alive: bool
    received: float
    """When its head was complete, on the loop's clock (seconds)."""
    identity: bytes
    """x-request-id: the client's own, or ours."""
    fields: Fields = field(default_factory=list)
    """Names in lower case. Without Content-Length: the body says it."""
    endpoint: Endpoint = NOWHERE
    authorization: bytes = b""
    origin: bytes = b""
    grant: Grant = NOBODY
    """Who asks."""
    estimate: int | None = None
    """Tokens it was admitted with, when its key has limits."""
    local: bool = False
    """The client is on this machine."""
    named_by_connection: frozenset[bytes] = frozenset()
    body: bytes = b""
    held: int = 0
    """Bytes that are counted for its body (``bodies.Bodies``)."""
    reply: Reply | None = None
    """Settled before its turn: what the request gets."""
    holder: str = ""
    """The only replica that can answer it, by key: it holds what the request is about."""
    lines: bytes | None = None
    """:meth:`onward`, once it was made."""
    span: Any = None
    """OpenTelemetry's, where it is in use."""

    def again(self, received: float, identity: bytes, local: bool) -> ClientRequest:
        """Another request with the same head, before its body came."""
        return ClientRequest(
            self.method, self.path, self.query, self.http11, self.keep_alive, received, identity, self.fields,
            self.endpoint, self.authorization, self.origin, self.grant, None, local,
            self.named_by_connection, b"", 0, None, "", self.lines,
        )  # fmt: skip

    def onward(self, plain: bool) -> bytes:
        """The lines of its head that go on to a worker. ``plain``: ask for an uncompressed answer."""
        if plain:
            return for_worker(self.fields, self.named_by_connection, plain=True)
        if self.lines is None:
            self.lines = for_worker(self.fields, self.named_by_connection, plain=False)
        return self.lines

    @property
    def label(self) -> str:
        return self.endpoint.label

    @property
    def upstream_path(self) -> bytes:
        return self.endpoint.upstream + (b"?" + self.query if self.query else b"")

    @property
    def model_in_path(self) -> bool:
        return bool(self.endpoint.name) and self.endpoint.kind is EndpointKind.PROXY

    def field(self, name: bytes) -> bytes:
        return next((value for key, value in self.fields if key == name), b"")

    def all_of(self, name: bytes) -> str:
        """The values of every field of that name, joined as RFC 9110 §5.3 has it."""
        return b",".join(value for key, value in self.fields if key == name).decode("latin-1")
