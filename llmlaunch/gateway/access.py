"""The access log: one JSON object a line for every request that ended. No prompt, no answer, no key."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

log = logging.getLogger(__name__)

FLUSH_AT = 64 << 10
"""Bytes that are written without waiting for the next flush."""
WRITE_MOST = 4096
"""Bytes of whole lines that are written at once: up to PIPE_BUF a pipe keeps together what each of several processes
writes."""
NAME_MOST = 200
"""Characters of a model's name that are logged: unknown ones may be anything a client sent."""


def line(
    *,
    at: float,
    request_id: bytes,
    trace_id: str,
    key: str,
    method: bytes,
    path: str,
    model: str,
    replica: str,
    status: int,
    tokens: tuple[int, int] | None,
    first_byte_s: float | None,
    duration_s: float,
    attempts: int,
) -> str:
    """One line without its end. ``at``: when it ended, seconds since 1970. What is not known is left out."""
    value: dict[str, object] = {
        "time": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "request_id": request_id.decode("latin-1"),
        "trace_id": trace_id,
        "key": key,
        "method": method.decode("latin-1"),
        "path": path,
        "model": model[:NAME_MOST],
        "replica": replica,
        "status": status,
        "prompt_tokens": tokens and tokens[0],
        "completion_tokens": tokens and tokens[1],
        "first_byte_s": None if first_byte_s is None else round(first_byte_s, 6),
        "duration_s": round(duration_s, 6),
        "attempts": attempts or None,
    }
    return json.dumps({name: item for name, item in value.items() if item is not None and item != ""})


class AccessLog:
    """Writes lines to a file descriptor, many at a time. ``later`` is called when there is something to flush."""

    def __init__(self, descriptor: int, later: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._later = later
        self._lines: list[str] = []
        self._size = 0
        self._broken = False

    def add(self, text: str) -> None:
        if not self._lines:
            self._later()
        self._lines.append(text)
        self._size += len(text)
        if self._size > FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Write what waits. A reader that is gone costs its lines, not the service."""
        if not self._lines:
            return
        lines = [f"{text}\n".encode() for text in self._lines]
        self._lines.clear()
        self._size = 0
        try:
            for data in _together(lines):
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            if not self._broken:
                log.warning("the access log can not be written: %s", error.strerror)
            self._broken = True


def _together(lines: Iterable[bytes]) -> Iterator[bytes]:
    """``lines``, as many in one as WRITE_MOST allows."""
    found: list[bytes] = []
    size = 0
    for text in lines:
        if found and size + len(text) > WRITE_MOST:
            yield b"".join(found)
            found.clear()
            size = 0
        found.append(text)
        size += len(text)
    if found:
        yield b"".join(found)
