"""The lock that makes a supervisor the only one of its deployment, and the unix socket on which it listens."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from llmlaunch import paths
from llmlaunch.common import file_lock, files
from llmlaunch.errors import ControlError

if TYPE_CHECKING:
    from filelock import FileLock


class AlreadyRunningError(ControlError):
    """Another supervisor is in charge of this deployment."""

    code = "already_running"


def take_lock(where: paths.DeploymentPaths) -> FileLock:
    """Become the deployment's only supervisor, until the lock is released. Raises AlreadyRunningError."""
    paths.private_dir(where.state)
    try:
        return file_lock.acquire(where.lock, 0.0)
    except file_lock.LockTakenError:
        raise AlreadyRunningError(f"another supervisor already runs {where.name!r}") from None


def bind_socket(where: paths.DeploymentPaths) -> socket.socket:
    """The listening control socket, accessible to this user only. Only the holder of the lock may call this."""
    files.remove(where.socket)
    folder = os.open(where.run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            # Through the folder's descriptor: the path itself may be longer than the 107 bytes of a unix address.
            sock.bind(f"/proc/self/fd/{folder}/{where.socket.name}")
        finally:
            os.umask(before)
    finally:
        os.close(folder)
    sock.listen(64)
    sock.setblocking(False)
    return sock


FileIdentity = tuple[int, int, int]
"""Device, inode and time of the last change: a new file may get the inode of the one before."""


def file_identity(path: Path) -> FileIdentity | None:
    """What is at ``path`` now, links not followed; None if there is nothing."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns
