"""How many tokens an answer took, read from the end of its bytes while they pass. Pure.

``"usage"`` with both its quotes is, in valid JSON, nothing else than a whole string: inside another one its quotes are
escaped. So the last one that is followed by an object is the answer's own account, framing and all notwithstanding.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PIECES = 4
"""Reads of an answer that are kept: an event with the usage, ``[DONE]`` and the last chunk may each come alone."""
LOOK_BACK = 8 << 10
"""Bytes from the end beyond which no usage is looked for in older pieces."""
_WINDOW = 1 << 10
_KEY = b'"usage"'
_BEGINS = re.compile(rb'"usage"\s*:\s*\{')
_COUNT = re.compile(rb'"(prompt|input|completion|output|total)_tokens"\s*:\s*(\d{1,15})(?=[\s,}])')
_USUAL = re.compile(
    rb'"usage"\s*:\s*\{\s*"prompt_tokens"\s*:\s*(\d{1,15})\s*,\s*(?:"total_tokens"\s*:\s*\d{1,15}\s*,\s*)?'
    rb'"completion_tokens"\s*:\s*(\d{1,15})(?=[\s,}])'
)
"""How OpenAI and all engines that follow it write a chat's account: read at once."""
_BACKSLASH = 0x5C

Tokens = tuple[int, int]
"""Of the prompt, of the completion."""


def tokens_in(pieces: Sequence[bytes]) -> Tokens | None:
    """What the last ``pieces`` of an answer tell (``pieces`` are consecutive reads); None when they tell nothing.

    Takes OpenAI's names of all its APIs: prompt_tokens or input_tokens, completion_tokens or output_tokens; where only
    total_tokens is told (rerank), it counts as the prompt.
    """
    tail = b""
    for piece in reversed(pieces):
        tail = piece + tail if tail else piece
        found = _tokens(tail)
        if found is not None or len(tail) > LOOK_BACK:
            return found
    return None


def _tokens(tail: bytes) -> Tokens | None:
    at = tail.rfind(_KEY)
    while at >= 0:
        if not (at and tail[at - 1] == _BACKSLASH):
            usual = _USUAL.match(tail, at)
            if usual is not None:
                return int(usual[1]), int(usual[2])
            begins = _BEGINS.match(tail, at)
            if begins is not None:
                return _counts(tail, begins.end())
        at = tail.rfind(_KEY, 0, at)
    return None


def _counts(tail: bytes, at: int) -> Tokens | None:
    told = _COUNT.findall(tail, at, at + _WINDOW)
    if not told:
        return None
    # Of several equal names the first counts: details of the same name are nested behind it.
    counts = dict(reversed(told))
    completion = int(counts.get(b"completion") or counts.get(b"output") or 0)
    prompt = counts.get(b"prompt") or counts.get(b"input")
    if prompt is None:
        prompt = counts.get(b"total", b"0")
    return int(prompt), completion
