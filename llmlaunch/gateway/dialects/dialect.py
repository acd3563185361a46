"""What a dialect is: another API in which clients ask for what OpenAI's API offers. Pure.

::

    body of a client ──── Dialect.request ────► TranslatedRequest ────► OpenAI's endpoint of a replica
    response to it  ◄── TranslatedRequest.translator ◄──────────────── its response

A replica that has the dialect's endpoint itself is asked there, and then nothing is translated
(``exchange.dialect_choice``). An endpoint names its dialect in ``paths``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.payload.content_rewriter import ContentRewriter


@dataclass(frozen=True, slots=True)
class TranslatedRequest:
    """A request in OpenAI's API."""

    path: bytes
    """The endpoint at the replica."""
    body: bytes
    """JSON, with the same ``model`` as the original."""
    translator: Callable[[int, bytes], ContentRewriter]
    """Makes the translator for a response with this status and media type (in lower case, without parameters). The
    status reaches the client as it is: any but 200 comes with an error, usually in OpenAI's envelope."""


class Dialect(Protocol):
    """One endpoint of another API."""

    @property
    def native(self) -> bool:
        """Some engines have this endpoint themselves, at the same path: a replica is asked there until it says that it
        does not."""
        ...

    @property
    def streams_events(self) -> bool:
        """Whether its streams are server-sent events, among which comments may stand."""
        ...

    def request(self, body: bytes) -> TranslatedRequest:
        """Translate a client's body. Raises InvalidBody."""
        ...

    def error(self, reply: Reply, identity: bytes) -> Reply:
        """An error of the gateway's own in the dialect's form; ``identity`` is the request's id."""
        ...

    def native_error(self, status: int) -> ContentRewriter:
        """Brings an error of an engine that has the endpoint itself into the form that clients of this API expect."""
        ...

    def interruption(self, message: str) -> bytes:
        """What ends a stream that cannot go on, wherever it was cut; ``message`` says why."""
        ...
