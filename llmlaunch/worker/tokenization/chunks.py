"""Splits long texts into chunks that give the same tokens as the whole. Pure, apart from the tokenizer it is given.

While it works, a tokenizer takes about two hundred bytes per byte of text, and it can neither return early results nor
be interrupted. With chunks it takes a few MiB, and can stop as soon as enough is known. A text is split between two
words, and only where the surrounding text gives the same tokens with and without the split. If there is no such
position, the chunk gets longer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

Encode = Callable[[str], list[int]]
"""Token ids of a text, without the special tokens at its start and end."""

AROUND = 256
"""Characters on each side that must give the same tokens."""
TRIES = 8
"""Positions that are tried before a chunk is made longer."""
BETWEEN = re.compile(r"(?<=\S)\s+(?=\S)|(?<=[^\w\s])(?=\w)")
"""Between words, or after punctuation, which scripts without spaces have, too."""


def split_forward(text: str, size: int, encode: Encode) -> Iterator[tuple[str, int]]:
    """Yield ``text`` in chunks of about ``size`` characters, each with the number of characters read so far."""
    start = 0
    for low in _steps(len(text), size):
        if low - start < size or len(text) - low < size // 2:
            continue
        if found := _cut(text, low, min(low + size // 4, len(text)), encode):
            yield text[start : found[0]], found[1]
            start = found[1]
    yield text[start:], len(text)


def split_backward(text: str, size: int, encode: Encode) -> Iterator[str]:
    """The same, from the end of the text."""
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
    """Where the chunk before ends and the next one begins, with a split between ``low`` and ``high``."""
    for place in islice(BETWEEN.finditer(text, low, high), TRIES):
        at = place.start()
        left, right = text[max(0, at - AROUND) : at], text[at : at + AROUND]
        whole = encode(left + right)
        # Some tokenizers put a space before every text, so the one between two chunks is dropped.
        for gap in (0, place.end() - at):
            if encode(left) + encode(right[gap:]) == whole:
                return at, at + gap
    return None
