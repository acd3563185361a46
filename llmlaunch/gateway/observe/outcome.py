"""What became of a request: the one value that metrics, the access log and traces are written from."""

from __future__ import annotations

from typing import NamedTuple

from llmlaunch.gateway.request import ClientRequest

CLIENT_LEFT = 499
"""The status of a request whose client did not wait for its answer, as nginx counts it."""


class RequestOutcome(NamedTuple):
    """Of a request that has ended. A tuple: one is made for every request, at a third of what a frozen dataclass costs."""

    request: ClientRequest
    status: int
    """What the client got; CLIENT_LEFT if it left before."""
    duration_s: float
    """From the request's head to the end."""
    peer: str
    """Address at the other end of the client's connection."""
    model: str = ""
    """The name that was asked for, if a replica had to answer."""
    counted_model: str = ""
    """``model``, unless it is unknown here: metrics never forget a name, and anybody can make them up."""
    replica: str = ""
    """Key of the one that was asked last; empty: none was."""
    attempts: int = 0
    """Replicas that were asked."""
    first_byte_s: float | None = None
    """From the request's head to the first byte of the answer."""
    tokens: tuple[int, int] | None = None
    """Of the prompt and of the completion, as the answer told."""
    counted_tokens: int = 0
    """Of the answer, about, as counted on its way; only for keys with a limit of tokens."""
