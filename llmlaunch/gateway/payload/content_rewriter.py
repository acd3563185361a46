"""What changes the content of a response on its way to the client. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llmlaunch.gateway.failures import InvalidResponse

LIMIT = 64 << 20
"""The largest response (or event of a stream) that can be rewritten, in bytes."""


class ContentRewriter(Protocol):
    """Rewrites the content of one response."""

    content_type: bytes
    """Of the content that is returned; empty: it stays as it was."""
    streams: bool
    """True: :meth:`feed` returns content as it comes. False: :meth:`end` returns all of it."""

    def feed(self, content: bytes) -> bytes:
        """Take the next bytes and return those that are ready. Raises InvalidResponse beyond :data:`LIMIT`."""
        ...

    def end(self) -> bytes:
        """The content is complete: return the rest. Raises InvalidResponse if it cannot be rewritten."""
        ...


class WholeBody:
    """Keeps a body until it is complete and then rewrites it. Implements :class:`ContentRewriter`."""

    streams = False

    def __init__(self, rewrite: Callable[[bytes], bytes], content_type: bytes = b"") -> None:
        self.content_type = content_type
        self._rewrite = rewrite
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, content: bytes) -> bytes:
        """Keep ``content`` and return nothing. Raises InvalidResponse beyond ``LIMIT`` bytes."""
        self._parts.append(content)
        self._size += len(content)
        if self._size > LIMIT:
            raise InvalidResponse(f"it is larger than the {LIMIT} bytes that can be rewritten")
        return b""

    def end(self) -> bytes:
        """Return the rewritten body."""
        return self._rewrite(b"".join(self._parts))
