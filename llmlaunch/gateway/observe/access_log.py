"""The access log: one JSON object a line for each request that has ended. It contains no prompt, answer or key."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from queue import SimpleQueue
from threading import Thread

from llmlaunch.gateway.observe.outcome import RequestOutcome

log = logging.getLogger(__name__)

_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
"""W3C Trace Context, level 1."""

FLUSH_AT = 64 << 10
"""Bytes that are written without waiting for the next flush."""
WRITE_MOST = 4096
"""Bytes of whole lines that are written at once. A write of up to PIPE_BUF bytes into a pipe is atomic, so that lines of
several processes do not mix."""
WAITING_MOST = 4 << 20
"""Bytes that may wait for a slow reader; beyond that, lines are dropped."""
NAME_MOST = 200
"""Characters of a model's name that are logged: a client may send any name."""


def line(
    *,
    at: float,
    request_id: bytes,
    trace_id: str,
    client: str,
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
    """One line without its newline. ``at``: the end of the request in seconds since 1970. Unknown fields are left out."""
    rest = ""
    if tokens is not None:
        rest = f', "prompt_tokens": {tokens[0]}, "completion_tokens": {tokens[1]}'
    if first_byte_s is not None:
        rest += f', "first_byte_s": {first_byte_s:.6f}'
    rest += f', "duration_s": {duration_s:.6f}'
    if attempts:
        rest += f', "attempts": {attempts}'
    return (
        f'{{"time": "{_moment(at)}", "request_id": {_quoted(request_id.decode("latin-1"))}{_known("trace_id", trace_id)}'
        f'{_known("client", client)}{_known("key", key)}, "method": {_quoted(method.decode("latin-1"))}, "path": {_quoted(path)}'
        f'{_known("model", model[:NAME_MOST])}{_known("replica", replica)}, "status": {status}{rest}}}'
    )


def _known(name: str, value: str) -> str:
    return f', "{name}": {_quoted(value)}' if value else ""


def _moment(at: float) -> str:
    second, milliseconds = divmod(int(at * 1000), 1000)
    return f"{_second(second)}.{milliseconds:03d}Z"


@lru_cache(maxsize=2)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def line_of(outcome: RequestOutcome, client: str, trace: str, at: float) -> str:
    """The :func:`line` of one request. ``client``: its address. ``trace``: the id of our own trace; "" if there is none."""
    request = outcome.request
    parent = _TRACE.fullmatch(request.field(b"traceparent"))
    return line(
        at=at,
        request_id=request.identity,
        trace_id=trace or (parent[1].decode() if parent else ""),
        client=client,
        key=request.api_key.name,
        method=request.method,
        path=request.label,
        model=outcome.model,
        replica=outcome.replica,
        status=outcome.status,
        tokens=outcome.tokens,
        first_byte_s=outcome.first_byte_s,
        duration_s=outcome.duration_s,
        attempts=outcome.attempts,
    )


class AccessLog:
    """Writes lines to a file descriptor in batches. ``later`` is called when the first line of a batch was added.

    A thread writes them: a pipe that is not read, or a slow disk, blocks that thread and no request.
    """

    def __init__(self, descriptor: int, later: Callable[[], None]) -> None:
        self._later = later
        self._lines: list[str] = []
        self._size = 0
        self._handed = 0
        """Bytes passed to the writer so far."""
        self._lost = 0
        self._writer = _WriterThread(descriptor)

    def add(self, text: str) -> None:
        """Add one line, given without its newline."""
        if not self._lines:
            self._later()
        self._lines.append(text)
        self._size += len(text)
        if self._size > FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Pass the batch to the writer; drop and count its lines when too many bytes wait there already."""
        if not self._lines:
            return
        lines = [f"{text}\n".encode() for text in self._lines]
        size = sum(map(len, lines))
        self._lines.clear()
        self._size = 0
        # Once lines were dropped, half of the room must be free again: one large gap is better than many small ones.
        room = WAITING_MOST // 2 if self._lost else WAITING_MOST
        if self._handed + size - self._writer.done > room:
            if not self._lost:
                log.warning("the access log is not being read: lines are dropped from here on")
            self._lost += len(lines)
            return
        if self._lost:
            log.warning("%d lines of the access log were dropped", self._lost)
            self._lost = 0
        self._handed += size
        self._writer.give(lines)

    def close(self, seconds: float) -> None:
        """Write the rest; give up after ``seconds``."""
        self.flush()
        self._writer.end(seconds)


class _WriterThread:
    """Writes batches in a thread, which starts with the first batch so that it is not there when the process forks."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._broken = False
        self.done = 0
        """Bytes written or given up so far. Only the thread sets it."""

    def give(self, lines: list[bytes]) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._run, name="access log", daemon=True)
            self._thread.start()
        self._waiting.put(lines)

    def end(self, seconds: float) -> None:
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(seconds)
            if self._thread.is_alive():
                log.warning("the access log is not being read: its last lines are dropped")

    def _run(self) -> None:
        while (lines := self._waiting.get()) is not None:
            for data in _together(lines):
                self._write(data)
                self.done += len(data)

    def _write(self, data: bytes) -> None:
        """Write ``data``. If the reader is gone, the lines are lost and the service goes on."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            if not self._broken:
                log.warning("cannot write the access log: %s", error.strerror)
            self._broken = True


def _together(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The ``lines``, joined into writes of at most WRITE_MOST bytes."""
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
