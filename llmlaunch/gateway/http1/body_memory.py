"""How much memory the bodies of requests may take, all together. Pure.

A body is held until its request is over, for it may have to be sent to another replica. Each has a bound of its own, and
all of them together have this one, or a dozen large ones would take what the machine has. What a client announces is
counted at once, so that nobody sends megabytes only to be refused at the end of them; a chunked body, which announces
nothing, is counted as it comes.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmlaunch.gateway.request import ClientRequest

COUNTED_FROM = 16 << 10
"""Bytes up to which a body is not counted: about what the rest of a request and its connection take, and those are
bounded by the number of connections. Most requests are so small, and pay one comparison."""


@dataclass(slots=True)
class BodyMemory:
    """One process's part."""

    most: int
    """Bytes."""
    held: int = 0

    def hold(self, request: ClientRequest, size: int) -> bool:
        """Count ``size`` bytes for ``request`` from now on, instead of what it had. False: there is no room for them."""
        more = size - request.held
        if self.held + more > self.most:
            return False
        self.held += more
        request.held = size
        return True

    def release(self, request: ClientRequest) -> None:
        """Its body is not needed any more. Twice does no harm."""
        self.held -= request.held
        request.held = 0
