"""Ids of responses that carry which worker made them. Pure.

A worker stores the responses that it made (``/v1/responses``), so later requests about one must reach that worker. Its ids
begin with a mark, a hash of its name: every process that knows the names of all workers finds the right one, after a
restart, too, and no table of ids has to be kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_SIZE = 4
"""Bytes of a mark: among a thousand workers, two share one with a probability of one in ten thousand."""
_MARKED = re.compile(r"resp_([0-9a-f]{8})[0-9a-f]{40}")


def mark(worker_name: str) -> str:
    """The mark of a worker: eight hexadecimal digits."""
    return hashlib.blake2b(worker_name.encode(), digest_size=_SIZE).hexdigest()


def response_id(worker_name: str, draw: bytes) -> str:
    """An id that looks like OpenAI's own. ``draw``: 20 random bytes, so that it cannot be guessed."""
    return f"resp_{mark(worker_name)}{draw.hex()}"


def is_marked(identity: str) -> bool:
    """Whether ``identity`` carries the mark of a worker."""
    return _MARKED.fullmatch(identity) is not None


def giver(identity: str, worker_names: Iterable[str]) -> str | None:
    """The one of ``worker_names`` that made a response; None when it was none of them, or the id has no mark."""
    found = _MARKED.fullmatch(identity)
    if found is None:
        return None
    return next((name for name in worker_names if mark(name) == found[1]), None)
