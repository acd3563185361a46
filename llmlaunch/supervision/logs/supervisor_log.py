"""The supervisor's own log, bounded like those of its components."""

from __future__ import annotations

import logging
import os

from llmlaunch import paths
from llmlaunch.supervision.processes.log_writer import LogWriter

MOST_BYTES = 10 << 20
KEPT = 2
"""Files of that size."""


def keep(where: paths.DeploymentPaths) -> None:
    """Rotate the supervisor's log, if stderr is that file.

    With another stderr, such as a terminal, nothing changes.
    """
    try:
        mine, file = os.fstat(2), where.supervisor_log.lstat()
        if (mine.st_dev, mine.st_ino) != (file.st_dev, file.st_ino):
            return
        folder = os.open(where.logs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    handler = _Handler(_Writer(folder, where.supervisor_log.name, MOST_BYTES, KEPT))
    root = logging.getLogger()
    handler.setFormatter(root.handlers[0].formatter if root.handlers else None)
    root.handlers = [handler]


class _Writer(LogWriter):
    def opened(self, descriptor: int) -> None:
        # What the interpreter and libraries print belongs there, too, and must not go on into an earlier file.
        for stream in (1, 2):
            os.dup2(descriptor, stream)


class _Handler(logging.Handler):
    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        self._writer.write(f"{text}\n".encode(errors="backslashreplace"))
