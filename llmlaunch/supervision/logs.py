"""What components printed: one file for each incarnation, readable by their owner alone."""

from __future__ import annotations

import os
import re
from pathlib import Path

from llmlaunch import paths

KEPT = 10
"""Files kept for each component."""
_TAIL_BYTES = 64 << 10
_ROOM_BYTES = 16 << 10
_NAME = re.compile(r"(?P<component>.+)\.(?P<incarnation>\d{6,})\.log")


def log_files(name: str, component: str) -> list[Path]:
    """The log files of one component of deployment ``name``, oldest first; the last one is the current incarnation's."""
    return [path for _, path in _numbered(name, component)]


def last_incarnation(name: str, component: str) -> int:
    """The newest incarnation that left a log; 0 when there is none. Numbering goes on from it."""
    found = _numbered(name, component)
    return found[-1][0] if found else 0


def open_log(name: str, component: str, incarnation: int) -> int:
    """A descriptor to append to, close-on-exec. Logs older than the last ten are deleted. Raises OSError."""
    where = paths.DeploymentPaths(name)
    paths.private_dir(where.logs)
    for old in log_files(name, component)[: -(KEPT - 1)]:
        old.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.open(where.log(component, incarnation), flags, 0o600)


def disk_is_full(folder: Path) -> bool:
    """Whether nothing more can be written there."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < _ROOM_BYTES


def tail(path: Path, lines: int) -> list[str]:
    """The last ``lines`` lines, without their line ends; empty when there is no such file."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(size - _TAIL_BYTES, 0))
            text = log.read().decode(errors="replace")
    except OSError:
        return []
    # A carriage return without a newline is a progress bar that overwrites itself: its last state is the line.
    rows = [row.rstrip("\r").rpartition("\r")[2] for row in text.split("\n")]
    if size > _TAIL_BYTES:
        rows = rows[1:]
    while rows and not rows[-1].strip():
        rows.pop()
    return rows[-lines:] if lines > 0 else []


def _numbered(name: str, component: str) -> list[tuple[int, Path]]:
    folder = paths.DeploymentPaths(name).logs
    if not folder.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(m["incarnation"]), path) for m, path in matches if m and m["component"] == component)
