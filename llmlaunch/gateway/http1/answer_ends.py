"""Whether an answer that ends with its connection is whole. Pure.

Nothing in HTTP tells such an answer from one whose sender died (RFC 9112 §8), but what OpenAI's API sends has an end
of its own: JSON closes what it opened, and a stream has a last event.
"""

from __future__ import annotations

_LAST_EVENTS = (b"[DONE]", b"response.completed", b"response.incomplete", b"response.failed", b'"error"')


def is_whole(content_type: bytes, tail: bytes) -> bool:
    """``tail`` is the end of the answer. True as well when the type does not say what an end looks like."""
    kind = content_type.partition(b";")[0].strip().lower()
    if kind == b"text/event-stream":
        return tail.endswith(b"\n") and any(mark in tail for mark in _LAST_EVENTS)
    if kind == b"application/json":
        return tail.rstrip().endswith((b"}", b"]"))
    return True
