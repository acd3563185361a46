"""Ids of responses and of their items that carry which worker made them. Pure.

A worker stores the responses that it made (``/v1/responses``), so later requests about one, or about one of its items, must
reach that worker. Its ids have a mark, a hash of its name: every process that knows the names of all workers finds the right
one, after a restart, too, and no table of ids has to be kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_SIZE = 4
"""Bytes of a mark: among a thousand workers, two share one with a probability of one in ten thousand."""
_MARKED = re.compile(r"[a-z]{2,8}_([0-9a-f]{8})[0-9a-f]{40}")


def mark(worker_name: str) -> str:
    """The mark of a worker: eight hexadecimal digits."""
    return hashlib.blake2b(worker_name.encode(), digest_size=_SIZE).hexdigest()


def marked_id(prefix: str, worker_name: str, draw: bytes) -> str:
    """An id that looks like OpenAI's own, which begin with ``prefix``: resp, msg, fc, rs.

    ``draw``: 20 random bytes, so that it cannot be guessed.
    """
    return f"{prefix}_{mark(worker_name)}{draw.hex()}"


def is_marked(identity: str) -> bool:
    """Whether ``identity`` carries the mark of a worker."""
    return _MARKED.fullmatch(identity) is not None


def giver(identities: Iterable[str], worker_names: Iterable[str]) -> str | None:
    """The one of ``worker_names`` that made the first response or item that one of them made. None: they made none of
    ``identities``, or the ids have no mark."""
    names: dict[str, str] | None = None
    for identity in identities:
        found = _MARKED.fullmatch(identity)
        if found is not None:
            if names is None:
                names = {mark(name): name for name in worker_names}
            if found[1] in names:
                return names[found[1]]
    return None
