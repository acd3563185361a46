"""Which part of a request says what a replica may have in its KV cache already. Pure.

A conversation grows at its end, so every turn of it begins alike: with everything up to the first message of the user.
That part is looked for in the bytes, without building the whole JSON: a wrong guess costs a cache hit, nothing else.
"""

from __future__ import annotations

import hashlib
import json

LOOK_AT = 8 << 10
"""Bytes of the conversation that are read; a longer beginning is as good as its first bytes."""
TEXT = 512
"""Characters of a prompt that is one text."""
_KEYS = (b'"messages"', b'"prompt"', b'"input"')
_DECODER = json.JSONDecoder()


def prefix_of(body: bytes) -> bytes:
    """A digest that is the same for all turns of a conversation; empty when the body holds none."""
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
            # The end of the list; or it holds texts or token numbers, and is as good as a text.
            return text[:at] if text[at : at + 1] == "]" else text[:TEXT]
        end = _end(text, at)
        if '"user"' in text[at:end]:
            return text[:end]
        at = end


def _end(text: str, at: int) -> int:
    """Where the JSON value that begins at ``at`` ends; the end of ``text`` when it is cut."""
    try:
        return _DECODER.raw_decode(text, at)[1]
    except (ValueError, RecursionError):
        return len(text)
