"""Read a manifest's bytes, whatever its path turns out to be. Light: ``llmlaunch status -f FILE`` needs it, too."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_BYTES = 1 << 20


def read_bytes(path: Path) -> bytes:
    """The file's bytes, at most one more than ``MAX_BYTES``.

    Raises OSError and ValueError as ``open`` does, IsADirectoryError for a folder, and OSError for a pipe or a device: a
    manifest is read more than once, and some of these never end or never begin.
    """
    # Not blocking: a pipe that nobody writes to would never open.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not an ordinary file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
