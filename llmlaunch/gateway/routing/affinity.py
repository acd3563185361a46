"""The part of a request that a replica may already have in its KV cache. Pure.

A conversation grows at its end, so all of its turns begin alike: with everything up to the user's first message. That
part is found in the bytes, without parsing the whole JSON. A wrong guess costs only a cache hit.
"""

from __future__ import annotations

import hashlib
import json

LOOK_AT = 8 << 10
"""Bytes of the conversation that are read at most."""
TEXT = 512
"""Characters that are used of a prompt that is a single text."""
_KEYS = (b'"messages"', b'"prompt"', b'"input"')
_DECODER = json.JSONDecoder()


def prefix_of(body: bytes) -> bytes:
    """A digest that is the same for all turns of a conversation; empty if the body contains no prompt."""
    for key in _KEYS:
        at = body.find(key)
        if at >= 0:
            at += len(key)
            text = body[at : at + LOOK_AT].decode(errors="replace").lstrip(" \t\r\n:")
            return hashlib.blake2b(_beginning(text).encode(), digest_size=16).digest()
    return b""


def _beginning(text: str) -> str:
    if not text.startswith("["):
        return text[: _end(text, 0)][:TEXT]
    at = 1
    while True:
        at = len(text) - len(text[at:].lstrip(" \t\r\n,"))
        if text[at : at + 1] != "{":
            # The end of the list; or a list of texts or tokens, which is treated like a single text.
            return text[:at] if text[at : at + 1] == "]" else text[:TEXT]
        end = _end(text, at)
        if '"user"' in text[at:end]:
            return text[:end]
        at = end


def _end(text: str, at: int) -> int:
    """Where the JSON value at ``at`` ends; the end of ``text`` if the value is truncated."""
    try:
        return _DECODER.raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return len(text)
