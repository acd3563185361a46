"""Why a supervisor does not answer, as far as others can see: it is stopped, or it has said itself that it hangs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from llmlaunch import paths

_NOTE_BYTES = 4096


def explain(where: paths.DeploymentPaths, pid: int) -> str:
    """Words that follow "the supervisor"; empty when nothing is known to be wrong. ``pid`` 0: not known."""
    if pid and _state(pid) in ("T", "t"):
        return f"is stopped (resume it with: kill -CONT {pid})"
    since = _hangs_since(where, pid)
    return "" if since is None else f"has been hanging for {max(time.monotonic() - since, 0):.0f} s"


def record_hang(where: paths.DeploymentPaths, since: float) -> None:
    """Tell clients that this process, a supervisor, has been hanging since ``since`` (seconds of the monotonic clock)."""
    where.hang_note.write_text(json.dumps({"pid": os.getpid(), "since": since}))


def clear_hang(where: paths.DeploymentPaths) -> None:
    """Remove the note of :func:`record_hang`."""
    where.hang_note.unlink(missing_ok=True)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return ""


def _hangs_since(where: paths.DeploymentPaths, pid: int) -> float | None:
    try:
        descriptor = os.open(where.hang_note, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            said = json.loads(file.read(_NOTE_BYTES))
        # A supervisor that was killed while it hung leaves its note behind.
        return float(said["since"]) if pid in (0, said["pid"]) else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
