"""Long texts in pieces that make the same tokens as the whole. Pure, apart from the tokenizer it is given.

A tokenizer takes about two hundred bytes for each byte of a text while it works, holds on to nothing it could give back
before the end, and cannot be interrupted. In pieces it takes a few MiB, and can stop when enough is known. A text is
cut between two words, and only where the text around makes the same tokens cut as uncut. Where no such place is found
a piece is longer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

Encode = Callable[[str], list[int]]
"""Token ids of a text, without those that a model wants at the start and at the end."""

AROUND = 256
"""Characters on each side that must make the same tokens."""
TRIES = 8
"""Places that are tried before a piece is made longer."""
BETWEEN = re.compile(r"(?<=\S)\s+(?=\S)|(?<=[^\w\s])(?=\w)")
"""Between words, or after a punctuation mark, which scripts without spaces have too."""


def forward(text: str, size: int, encode: Encode) -> Iterator[tuple[str, int]]:
    """``text`` in pieces of about ``size`` characters, from its start, and with each how many characters are read."""
    start = 0
    for low in _steps(len(text), size):
        if low - start < size or len(text) - low < size // 2:
            continue
        if found := _cut(text, low, min(low + size // 4, len(text)), encode):
            yield text[start : found[0]], found[1]
            start = found[1]
    yield text[start:], len(text)


def backward(text: str, size: int, encode: Encode) -> Iterator[str]:
    """The same from its end."""
    end = len(text)
    for low in _steps(len(text), size):
        high = len(text) - low
        if end - high < size or high < size // 2:
            continue
        if found := _cut(text, max(0, high - size // 4), high, encode):
            yield text[found[1] : end]
            end = found[0]
    yield text[:end]


def _steps(length: int, size: int) -> range:
    return range(size, length, max(1, size // 4))


def _cut(text: str, low: int, high: int, encode: Encode) -> tuple[int, int] | None:
    """Where the piece before ends, and where the next one begins, with the cut at ``low`` to ``high``."""
    for place in islice(BETWEEN.finditer(text, low, high), TRIES):
        at = place.start()
        left, right = text[max(0, at - AROUND) : at], text[at : at + AROUND]
        whole = encode(left + right)
        # Some tokenizers put a space before every text, so the one between two pieces must go.
        for gap in (0, place.end() - at):
            if encode(left) + encode(right[gap:]) == whole:
                return at, at + gap
    return None
