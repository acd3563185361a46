"""The two calls of ``prctl`` (``man 2 prctl``) that keep a process tree together. Linux alone; read by the shim too."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(
    None, use_errno=True
)  # loaded here, because both may be called between a fork and an exec


def die_with_parent() -> None:
    """Have this process killed when the thread that forked it ends. Lost at an exec of a set-user-ID program.

    A parent that ended before this call is not noticed: compare ``os.getppid()`` afterwards.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent ends, whatever its session or group."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
