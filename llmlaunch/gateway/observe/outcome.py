"""The outcome of a request: the one value that metrics, the access log and traces are made from."""

from __future__ import annotations

from typing import NamedTuple

from llmlaunch.gateway.request import ClientRequest

CLIENT_LEFT = 499
"""The status of a request whose client left before the answer was complete, as in nginx."""


class RequestOutcome(NamedTuple):
    """The outcome of one request. A tuple: one is made for each request, at a third of the cost of a frozen dataclass."""

    request: ClientRequest
    status: int
    """The HTTP status that the client got; CLIENT_LEFT if it left before the end."""
    duration_s: float
    """Seconds from the request's head to the end."""
    peer: str
    """Address at the other end of the client's connection."""
    model: str = ""
    """The requested model; empty for requests that the gateway answers itself."""
    counted_model: str = ""
    """``model`` if it is known here, else empty: metrics never forget a name, and clients can invent any number."""
    replica: str = ""
    """The key of the replica that was tried last; empty if none was."""
    attempts: int = 0
    """How many replicas were chosen for it, one after the other."""
    first_byte_s: float | None = None
    """Seconds from the request's head to the first content of the answer."""
    tokens: tuple[int, int] | None = None
    """The tokens of the prompt and of the completion, if the answer reported its usage."""
    counted_tokens: int = 0
    """The estimated tokens of the answer; 0 unless the key has a limit of tokens."""
