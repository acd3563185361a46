"""A connection to a deployment's supervisor: over its unix socket, and only to a process of this user's or of root's.

The socket's folder is entered through ``/proc/self/fd``, because a unix socket's path may be 107 bytes long at most
(``man 7 unix``) and a home folder may be deeper than that.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import select
import socket
import struct
import time
from pathlib import Path

from llmlaunch import paths
from llmlaunch.common import files
from llmlaunch.control import supervisor_process, unresponsive
from llmlaunch.errors import ControlError, LlmlaunchError, NotRunningError

ANSWER_S = 15.0
"""Seconds without an answer after which a supervisor counts as unresponsive."""
_CHECK_EVERY_S = 1.0
"""How often a client that waits for an answer checks whether the supervisor can answer at all."""
_NOT_OURS = (errno.EPROTOTYPE, errno.ENOTSOCK, errno.ELOOP)


class NotAnsweringError(ControlError):
    """The supervisor is there and does not answer: it is stopped, hangs, or has more to do than it can."""

    code = "not_answering"


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over the supervisor's unix socket. ``pid``: the supervisor's, 0 when it is not known."""

    def __init__(self, name: str, pid: int, timeout_s: float = ANSWER_S) -> None:
        super().__init__("localhost")
        self._name, self._pid = name, pid
        self._timeout_s = timeout_s

    def connect(self) -> None:
        """Connect to the supervisor's socket."""
        self.sock = open_socket(self._name, self._pid, self._timeout_s)

    def await_answer(self) -> None:
        """Return when the answer begins. Raises NotAnsweringError as soon as it is known that none will come; else TimeoutError."""
        end = time.monotonic() + self._timeout_s
        where = paths.DeploymentPaths(self._name)
        while self.sock is not None and (left := end - time.monotonic()) > 0:
            if select.select([self.sock], [], [], min(left, _CHECK_EVERY_S))[0]:
                return
            if unresponsive.explain(where, self._pid):
                raise not_answering(self._name, self._pid, "")
        raise TimeoutError


def open_socket(name: str, pid: int, timeout_s: float = ANSWER_S) -> socket.socket:
    """A connection to the supervisor of the deployment ``name``; ``pid`` is its process, 0 when that is not known yet.

    Raises NotRunningError, ForeignError, NotAnsweringError or ControlError.
    """
    where = paths.DeploymentPaths(name)
    paths.refuse_foreign(where.run)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.settimeout(timeout_s)
    try:
        folder = os.open(where.run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _refuse_foreign(name, os.fstat(folder).st_uid)
            sock.connect(f"/proc/self/fd/{folder}/{where.socket.name}")
        finally:
            os.close(folder)
        # Whoever listens there receives every secret of the deployment.
        _refuse_foreign(name, peer(sock)[1])
    except PermissionError:
        sock.close()
        raise _unreadable(name, where.socket) from None
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        sock.close()
        raise NotRunningError(
            f"deployment {name!r} is not running", hint="start it with: llmlaunch up"
        ) from None
    except (BlockingIOError, TimeoutError):
        sock.close()
        raise not_answering(name, pid, "accepts no more connections") from None
    except supervisor_process.ForeignError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        if error.errno in _NOT_OURS:
            raise NotRunningError(f"{where.socket} is not the supervisor's socket") from None
        raise ControlError(f"cannot reach the supervisor of {name!r} at {where.socket}: {error}") from None
    return sock


def not_answering(name: str, pid: int, why: str) -> NotAnsweringError:
    """The error for a supervisor that takes no connection or gives no answer; ``why`` in case that nothing else explains it."""
    where = paths.DeploymentPaths(name)
    shown = f" (pid {pid})" if pid else ""
    return NotAnsweringError(
        f"the supervisor of {name!r}{shown} does not answer: it {unresponsive.explain(where, pid) or why}",
        hint=f"its components keep serving; see {where.supervisor_log}; "
        f"`llmlaunch down --name {name} --force` kills it and all its processes",
    )


def peer(sock: socket.socket) -> tuple[int, int]:
    """Pid and user of the process that listens; pid 0 when it lives in a pid namespace that cannot be seen from here."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid), int(uid)


def _refuse_foreign(name: str, uid: int) -> None:
    """Raise ForeignError unless what belongs to ``uid`` may speak for the deployment ``name`` of this user."""
    if not files.trusted(uid):
        raise supervisor_process.foreign_error(name, uid)


def _unreadable(name: str, path: Path) -> LlmlaunchError:
    """The error for a socket that may not be reached: the nearest folder that can be looked at says whose it is."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            owner = place.stat().st_uid
            if owner != os.geteuid():
                return supervisor_process.foreign_error(name, owner)
            break
    return ControlError(f"cannot reach the supervisor of {name!r} at {path}: permission denied")
