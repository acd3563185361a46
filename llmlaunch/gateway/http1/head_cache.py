"""Heads that were seen before, so that they need not be parsed again. Pure.

Whoever speaks HTTP to us says the same head over and over, with another length. What a strict parser made of a head
is a function of its bytes: it holds for the same bytes from anybody, and for other digits in the same Content-Length.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

MOST = 512
"""Heads that are remembered; one more, and all are forgotten, which costs less than to tell which is the oldest."""
HEAD_MOST = 4096
"""Bytes of a head beyond which it is not remembered."""
_SPELLINGS = (b"\r\ncontent-length: ", b"\r\nContent-Length: ")
_DIGITS_MOST = 15


def key_of(data: bytes, end: int) -> tuple[bytes, int | None] | None:
    """The head in front of the empty line at ``end``, without the digits of its Content-Length, and those.

    None where the length is spelled in any way that is not the usual one: such a head is left to the parser. The cut
    is at the first line that says Content-Length, so two heads have one key only if they differ there, and there in
    nothing but digits.
    """
    if end > HEAD_MOST:
        return None
    for spelling in _SPELLINGS:
        at = data.find(spelling, 0, end)
        if at >= 0:
            at += len(spelling)
            stop = data.find(b"\r", at, end + 1)
            digits = data[at:stop]
            if not digits.isdigit() or len(digits) > _DIGITS_MOST or (digits[0] == 0x30 and len(digits) > 1):
                return None
            return data[:at] + data[stop:end], int(digits)
    return data[:end], None


class HeadCache(Generic[T]):
    """What was made of heads, by :func:`key_of`."""

    __slots__ = ("_made", "get")

    def __init__(self) -> None:
        self._made: dict[bytes, T] = {}
        self.get = self._made.get

    def put(self, key: bytes, made: T) -> None:
        """Remember ``made`` under ``key``. A full cache is emptied first."""
        if len(self._made) >= MOST:
            self._made.clear()
        self._made[key] = made

    def forget(self) -> None:
        """What was made of heads does not hold any more."""
        self._made.clear()
