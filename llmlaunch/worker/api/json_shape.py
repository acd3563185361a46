"""How many objects and lists a JSON body has, before it is parsed: parsing holds up everybody else in the process.

A text of 32 MiB is parsed in 40 ms, as many bytes of lists in lists in more than ten seconds. Pure.
"""

from __future__ import annotations

MOST = 1 << 16
"""Objects and lists of one body: parsed in about 0.1 s."""
WINDOW = 1 << 16
"""Bytes that are looked at in one go."""


def suspect(body: bytes, most: int = MOST) -> bool:
    """Whether ``body`` may have more than ``most`` objects and lists; brackets inside texts count as well. Quick."""
    return len(body) > most and body.count(b"{") + body.count(b"[") > most


def too_many(body: bytes, most: int = MOST) -> bool:
    """Whether ``body`` has more than ``most`` objects and lists."""
    found, inside, start = 0, False, 0
    while start < len(body):
        end = min(start + WINDOW, len(body))
        while end < len(body) and body[end - 1 : end] == b"\\":  # what it escapes must be in the same window
            end += 1
        parts = body[start:end].replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        found += sum(part.count(b"{") + part.count(b"[") for part in parts[inside::2])
        if found > most:
            return True
        inside ^= len(parts) % 2 == 0
        start = end
    return False
