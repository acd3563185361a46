"""A cache of parsed heads. Pure.

Clients and workers send the same head again and again; only its Content-Length differs. The result of parsing depends on
the bytes of the head alone. So it holds for the same bytes from anybody else, and for other digits in Content-Length.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

MAX_HEADS = 512
"""Heads in the cache. When it is full it is emptied, which costs less than finding the oldest."""
MAX_HEAD_BYTES = 4096
"""Bytes of the largest head that is cached."""
_SPELLINGS = (b"\r\ncontent-length: ", b"\r\nContent-Length: ")
_MAX_DIGITS = 15


def key_of(data: bytes, end: int) -> tuple[bytes, int | None] | None:
    """The head that ends at ``end`` without the digits of its Content-Length, and the length itself in bytes.

    The length is None when the head has no Content-Length. Returns None for a head that cannot be cached: one that is too
    large, or whose length is not spelled in the usual way. Only the first Content-Length is cut out, so two heads with the
    same key differ in nothing but the digits there.
    """
    if end > MAX_HEAD_BYTES:
        return None
    for spelling in _SPELLINGS:
        at = data.find(spelling, 0, end)
        if at >= 0:
            at += len(spelling)
            stop = data.find(b"\r", at, end + 1)
            digits = data[at:stop]
            if not digits.isdigit() or len(digits) > _MAX_DIGITS or (digits[0] == 0x30 and len(digits) > 1):
                return None
            return data[:at] + data[stop:end], int(digits)
    return data[:end], None


class HeadCache(Generic[T]):
    """Parsed heads by :func:`key_of`."""

    __slots__ = ("_made", "get")

    def __init__(self) -> None:
        self._made: dict[bytes, T] = {}
        self.get = self._made.get

    def put(self, key: bytes, made: T) -> None:
        """Keep ``made``, the result of parsing, under ``key``. A full cache is emptied first."""
        if len(self._made) >= MAX_HEADS:
            self._made.clear()
        self._made[key] = made

    def clear(self) -> None:
        """Empty the cache."""
        self._made.clear()
