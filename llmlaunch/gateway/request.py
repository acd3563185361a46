"""A client's request once its head is read. It is plain data: access control, limits and tracing add their results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.limits.api_key import NO_KEY, ApiKey
from llmlaunch.gateway.paths import UNKNOWN, ApiEndpoint

Fields = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class ClientRequest:
    """One request of a client."""

    method: bytes
    path: bytes
    query: bytes
    http11: bool
    keep_alive: bool
    received: float
    """When its head was complete, in seconds of the monotonic clock."""
    identity: bytes
    """x-request-id: the client's own, or a generated one."""
    fields: Fields = field(default_factory=list)
    """Header fields with names in lower case. Without Content-Length, which follows from the body."""
    endpoint: ApiEndpoint = UNKNOWN
    presented_key: bytes = field(default=b"", repr=False)
    """What the client sent as its API key; empty: nothing."""
    origin: bytes = b""
    api_key: ApiKey = NO_KEY
    """The API key that it was sent with, and its limits."""
    estimate: int | None = None
    """Tokens that were estimated at admission, if the API key has limits."""
    local: bool = False
    """The connection comes from this machine."""
    named_by_connection: frozenset[bytes] = frozenset()
    """Names of the fields that its ``Connection`` declares hop-by-hop, in lower case."""
    body: bytes = b""
    reserved: int = 0
    """Bytes that are counted for its body (``http1.body_memory``)."""
    reply: Reply | None = None
    """The reply that was decided while it was parsed; None: it has yet to be answered."""
    holder: str = ""
    """The key of the only replica that can answer it, because it stores the response that the request names."""
    lines: bytes | None = None
    """The header lines that are passed on to a worker, once ``headers.onward`` has made them."""
    boundary: bytes = b""
    """The boundary of its body, if that is a form; else empty."""
    span: Any = None
    """The OpenTelemetry span, if traces are exported."""

    def with_same_head(self, received: float, identity: bytes, local: bool) -> ClientRequest:
        """A new request with the same head and without a body."""
        return ClientRequest(
            self.method, self.path, self.query, self.http11, self.keep_alive, received, identity, self.fields,
            self.endpoint, self.presented_key, self.origin, self.api_key, None, local,
            self.named_by_connection, b"", 0, None, "", self.lines,
        )  # fmt: skip

    @property
    def label(self) -> str:
        """The path as metrics name it."""
        return self.endpoint.label

    @property
    def upstream_path(self) -> bytes:
        """The path at the worker, with the query."""
        return self.endpoint.upstream + (b"?" + self.query if self.query else b"")

    def field(self, name: bytes) -> bytes:
        """The first value of the header field ``name`` (lower case); empty when there is none."""
        return next((value for key, value in self.fields if key == name), b"")

    def all_of(self, name: bytes) -> str:
        """The values of all fields called ``name``, joined by commas (RFC 9110 §5.3)."""
        return b",".join(value for key, value in self.fields if key == name).decode("latin-1")
