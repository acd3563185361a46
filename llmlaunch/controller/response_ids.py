"""Which worker gave an id, told by the id itself. Pure.

A worker keeps the responses it gave (``/v1/responses``), so later requests about one must reach that worker. Its ids
begin with a mark made of its name; whoever has the names of all workers finds the one, after a restart too, and in
every process alike, and nobody has to remember anything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_SIZE = 4
"""Bytes of a mark: among a thousand workers, two that share one are a chance of one in ten thousand."""
_MARKED = re.compile(r"resp_([0-9a-f]{8})[0-9a-f]{40}")


def mark(worker_name: str) -> str:
    """Eight hexadecimal digits."""
    return hashlib.blake2b(worker_name.encode(), digest_size=_SIZE).hexdigest()


def response_id(worker_name: str, draw: bytes) -> str:
    """An id that looks like OpenAI's own. ``draw``: 20 random bytes, which nobody can guess."""
    return f"resp_{mark(worker_name)}{draw.hex()}"


def is_marked(identity: str) -> bool:
    """Whether ``identity`` tells who gave it."""
    return _MARKED.fullmatch(identity) is not None


def giver(identity: str, worker_names: Iterable[str]) -> str | None:
    """Which of ``worker_names`` gave the id of a response; None when it was none of them, or does not tell."""
    found = _MARKED.fullmatch(identity)
    if found is None:
        return None
    return next((name for name in worker_names if mark(name) == found[1]), None)
