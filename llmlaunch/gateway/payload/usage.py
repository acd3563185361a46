"""Reads the token usage of a response from its last bytes. Pure.

In valid JSON ``"usage"`` with both quotes is always a whole string, because quotes inside a string are escaped. So the last
one that is followed by an object is the usage of the response, whatever framing surrounds it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

TAIL_READS = 4
"""Reads of a response that are kept: the event with the usage, ``[DONE]`` and the last chunk may each come alone."""
LOOK_BACK = 8 << 10
"""Bytes from the end after which no older read is searched."""
_WINDOW = 1 << 10
_KEY = b'"usage"'
_BEGINS = re.compile(rb'"usage"\s*:\s*\{')
_COUNT = re.compile(
    rb'"(prompt|input|completion|output|total|cache_read_input|cache_creation_input)_tokens"\s*:\s*(\d{1,15})(?=[\s,}])'
)
_USUAL = re.compile(
    rb'"usage"\s*:\s*\{\s*"prompt_tokens"\s*:\s*(\d{1,15})\s*,\s*(?:"total_tokens"\s*:\s*\d{1,15}\s*,\s*)?'
    rb'"completion_tokens"\s*:\s*(\d{1,15})(?=[\s,}])'
)
"""The usual order of the fields, which one match reads."""
_BACKSLASH = 0x5C

TokenCounts = tuple[int, int]
"""Tokens of the prompt and of the completion."""


def tokens_in(reads: Sequence[bytes]) -> TokenCounts | None:
    """The usage in ``reads``, the last reads of a response; None when there is none.

    Knows the names of OpenAI's and Anthropic's APIs: prompt_tokens or input_tokens, completion_tokens or output_tokens. If there is
    only total_tokens (rerank), they count as the prompt's.
    """
    tail = b""
    for read in reversed(reads):
        tail = read + tail if tail else read
        found = _tokens(tail)
        if found is not None or len(tail) > LOOK_BACK:
            return found
    return None


def _tokens(tail: bytes) -> TokenCounts | None:
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


def _counts(tail: bytes, at: int) -> TokenCounts | None:
    found = _COUNT.findall(tail, at, at + _WINDOW)
    if not found:
        return None
    # The first of several equal names counts: the others are in nested details after it.
    counts = dict(reversed(found))
    completion = int(counts.get(b"completion") or counts.get(b"output") or 0)
    prompt = counts.get(b"prompt") or counts.get(b"input")
    if prompt is None:
        prompt = counts.get(b"total", b"0")
    # Anthropic's input tokens are those alone that were not in the cache.
    cached = sum(int(counts.get(name, 0)) for name in (b"cache_read_input", b"cache_creation_input"))
    return int(prompt) + cached, completion
