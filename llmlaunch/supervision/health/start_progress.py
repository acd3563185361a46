"""Signs that a start goes on: lines of its log, and bytes that its processes move."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

from llmlaunch.common import files
from llmlaunch.common.terminal_text import one_line
from llmlaunch.supervision.logs.log_stream import LogStream
from llmlaunch.supervision.logs.printed_lines import is_probe, read_line, read_step

LINE_CHARACTERS = 200
_READ_BYTES = 256 << 10
_LEAST_BYTES = 1 << 20
"""What counts as moving. A server that hangs writes to its log, too, and reads what wakes it up."""


class ProgressLines:
    """New lines of a log that match one of ``patterns`` in any case, and do not only report probes of ``paths``."""

    def __init__(self, log: Path, patterns: tuple[str, ...], paths: tuple[str, ...] = ()) -> None:
        self._stream = LogStream(log)
        self._patterns = tuple(compiled for pattern in patterns if (compiled := _compile(pattern)))
        self._paths = paths
        self._last = ""
        self._reading = threading.Lock()
        self._over = threading.Event()

    @property
    def wanted(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._patterns)

    def close(self) -> None:
        """Close the log. A read that hangs in another thread keeps its file until it returns."""
        self._over.set()
        if self._reading.acquire(blocking=False):
            self._stream.close()
            self._reading.release()

    def newest(self) -> str:
        """What the last new line that matches says; empty if there is none. May block."""
        with self._reading:
            if not self._patterns or self._over.is_set():
                return ""
            found = self._newest()
            if self._over.is_set():
                self._stream.close()
            return found

    def _newest(self) -> str:
        try:
            data = self._stream.read(_READ_BYTES)
            if len(data) == _READ_BYTES:
                # It prints faster than it is read: only its newest lines matter.
                self._stream.skip_to_last(_READ_BYTES)
                data = self._stream.read(_READ_BYTES)
        except (OSError, files.UnusableFileError):
            return ""
        # Progress bars overwrite themselves with carriage returns.
        for line in reversed(data.decode(errors="replace").replace("\r", "\n").split("\n")):
            step = read_step(line, self._patterns)
            # A bar is drawn again to show how much time it has taken.
            again = step is not None and step.share is not None and step.text == self._last
            if step and not again and not is_probe(read_line(line).text, self._paths):
                self._last = step.text
                return one_line(step.text)[:LINE_CHARACTERS]
        return ""


def _compile(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error:
        return None


class MovedBytes:
    """Bytes that a process tree has read and written, and that were downloaded for it, as ``count`` returns them."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._told: int | None = None

    def newest(self) -> str:
        """What to say if a noteworthy number of bytes was moved since the last time; else empty. May block."""
        moved = self._count()
        if self._told is None or moved < self._told:
            self._told = moved  # what a process has read is no longer known once it has ended
        if moved - self._told < _LEAST_BYTES:
            return ""
        self._told = moved
        return f"{moved >> 20:,} MiB read and written so far"
