"""The memory that all request bodies together may take. Pure.

A body is kept until its request is over, because it may have to be sent to another replica. Each body has a limit of its
own. This limit is for all of them together: without it, a dozen large bodies could fill the machine's memory. The bytes
that a Content-Length announces are counted at once, so that no client sends megabytes only to be refused at the end. A
chunked body announces nothing and is counted as it arrives.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmlaunch.gateway.request import ClientRequest

COUNTED_FROM = 16 << 10
"""Bytes up to which a body is not counted. The rest of a request and its connection take about as much, and the number
of connections limits those. Most bodies are smaller than this and cost one comparison."""


@dataclass(slots=True)
class BodyMemory:
    """The memory for bodies in one process."""

    limit: int
    """Bytes."""
    reserved: int = 0

    def reserve(self, request: ClientRequest, size: int) -> bool:
        """Count ``size`` bytes for ``request``, instead of what was counted before. False: there is no room for them."""
        more = size - request.reserved
        if self.reserved + more > self.limit:
            return False
        self.reserved += more
        request.reserved = size
        return True

    def release(self, request: ClientRequest) -> None:
        """Stop counting the body of ``request``. Calling it again does nothing."""
        self.reserved -= request.reserved
        request.reserved = 0
