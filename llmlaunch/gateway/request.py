"""A client's request once its head is read. A value: whoever deals with it puts what it found into its fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.grants import NOBODY, Grant
from llmlaunch.gateway.paths import NOWHERE, Endpoint

Fields = list[tuple[bytes, bytes]]


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
    """Bytes that are counted for its body (``http1.body_memory``)."""
    reply: Reply | None = None
    """Settled before its turn: what the request gets."""
    holder: str = ""
    """The only replica that can answer it, by key: it holds what the request is about."""
    lines: bytes | None = None
    """The lines of its head that go on to a worker, once they were made (``headers.onward``)."""
    span: Any = None
    """OpenTelemetry's, where it is in use."""

    def again(self, received: float, identity: bytes, local: bool) -> ClientRequest:
        """Another request with the same head, before its body came."""
        return ClientRequest(
            self.method, self.path, self.query, self.http11, self.keep_alive, received, identity, self.fields,
            self.endpoint, self.authorization, self.origin, self.grant, None, local,
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
        """The values of every field of that name, joined as RFC 9110 §5.3 has it."""
        return b",".join(value for key, value in self.fields if key == name).decode("latin-1")
