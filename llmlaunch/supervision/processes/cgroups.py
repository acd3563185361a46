"""A control group for each incarnation of a component, where allowed: processes cannot leave it by forking, and one write kills
them all (``cgroup.kill``, Linux 5.14; Documentation/admin-guide/cgroup-v2.rst).

It complements process trees and environments, and nothing depends on it: ordinary users can create groups only where systemd or
a container delegates one to them. No controller is enabled, so nothing is limited.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PREFIX = "llmlaunch-"
_PROC = Path("/proc")


def own(proc: Path = _PROC) -> Path | None:
    """The folder of this process's group (version 2), if groups can be made in it."""
    try:
        mounts = [line.split() for line in (proc / "mounts").read_text().splitlines()]
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    root = next((fields[1] for fields in mounts if len(fields) > 2 and fields[2] == "cgroup2"), None)
    inside = next((line[3:] for line in lines if line.startswith("0::/")), None)
    if root is None or inside is None or ".." in inside.split("/"):
        return None
    folder = Path(root) / inside.lstrip("/")
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def make(parent: Path | None, name: str) -> str:
    """The path of a new group in ``parent``; empty if none can be created, or the kernel lacks ``cgroup.kill``."""
    if parent is None:
        return ""
    path = parent / f"{PREFIX}{name}"
    try:
        path.mkdir(exist_ok=True)
    except OSError:
        return ""
    if not (path / "cgroup.kill").exists():
        remove(str(path))
        return ""
    return str(path)


def kill(path: str) -> None:
    """SIGKILL everything in the group; does nothing if it is gone, or not one of ours."""
    if path and Path(path).name.startswith(PREFIX):
        with contextlib.suppress(OSError):
            descriptor = os.open(
                Path(path) / "cgroup.kill", os.O_WRONLY | os.O_CLOEXEC
            )  # never creates a file
            try:
                os.write(descriptor, b"1")
            finally:
                os.close(descriptor)


def pids(path: str) -> list[int]:
    """Pids of what is alive in the group."""
    try:
        return [int(line) for line in (Path(path) / "cgroup.procs").read_text().split()] if path else []
    except (OSError, ValueError):
        return []


def remove(path: str) -> None:
    """Remove the group, if nothing is alive in it."""
    if path and Path(path).name.startswith(PREFIX):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
