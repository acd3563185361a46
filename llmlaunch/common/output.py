"""Output of a process that serves: a failed write must not end it.

A full disk (ENOSPC), a reader that left (EPIPE), a closed or read-only descriptor (EBADF): lines are lost, and serving
goes on. Libraries print as they like, so this is done below everything that prints.
"""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Lossy(io.FileIO):
    """A descriptor on which no write fails: what cannot be written is lost."""

    def write(self, data: ReadableBuffer, /) -> int:
        """The number of bytes, whether they were written or lost."""
        try:
            written: int | None = super().write(data)
        except OSError:
            written = None
        # None also for a pipe that is full and does not block.
        return memoryview(data).nbytes if written is None else written


def ignore_write_errors() -> None:
    """From here on, no print and no log line of this process fails. For processes that serve; idempotent."""
    sys.stdout = _lossy(sys.stdout, 1)
    sys.stderr = _lossy(sys.stderr, 2)
    logging.raiseExceptions = False  # it would print a traceback for each line that is lost


def _lossy(stream: TextIO, descriptor: int) -> TextIO:
    """``stream``, if it is not the process's own: tests and embedders have put theirs there."""
    try:
        own = stream.fileno() == descriptor
        raw = _Lossy(descriptor, "w", closefd=False)
    except (OSError, ValueError, AttributeError):
        return stream
    if not own:
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )
