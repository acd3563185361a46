"""Locks between processes, one file each: filelock's, which are flock(2), so that a lock ends with its holder, however that ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from llmlaunch.common import files

LOOK_EVERY_S = 0.05


class LockTakenError(TimeoutError):
    """Somebody else holds the lock, and went on holding it."""


def acquire(
    path: Path,
    patience_s: float = -1.0,
    *,
    waiting: Callable[[], None] = lambda: None,
    waiting_after_s: float = 0.0,
) -> FileLock:
    """The lock at ``path``, held until its ``release()`` or the end of this process.

    Waits ``patience_s`` seconds, without end if that is negative; ``waiting`` is called once after the first ``waiting_after_s``.
    What lies at ``path`` and cannot be a lock of this user is set aside. Raises LockTakenError, and OSError where no lock can be
    kept.
    """
    os.close(files.open_kept(path, os.O_RDWR))
    lock = FileLock(path, mode=0o600, thread_local=False)
    first = waiting_after_s if patience_s < 0 else min(waiting_after_s, patience_s)
    try:
        lock.acquire(timeout=first, poll_interval=LOOK_EVERY_S)
    except Timeout:
        if first == patience_s:
            raise LockTakenError(f"{path} is locked") from None
    else:
        return lock
    waiting()
    try:
        lock.acquire(timeout=-1 if patience_s < 0 else patience_s - first, poll_interval=LOOK_EVERY_S)
    except Timeout:
        raise LockTakenError(f"{path} is locked") from None
    return lock


@contextlib.contextmanager
def held(
    path: Path,
    patience_s: float = -1.0,
    *,
    waiting: Callable[[], None] = lambda: None,
    waiting_after_s: float = 0.0,
) -> Iterator[None]:
    """As :func:`acquire`, released at the end of the block."""
    lock = acquire(path, patience_s, waiting=waiting, waiting_after_s=waiting_after_s)
    try:
        yield
    finally:
        lock.release()
