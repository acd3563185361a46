"""Which component of which deployment a process belongs to.

The supervisor starts its processes with LLMLAUNCH_DEPLOYMENT and LLMLAUNCH_COMPONENT in their environment, and what they
start inherits both. The kernel keeps the environment a process was started with in ``/proc/PID/environ``.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from llmlaunch.common import variables

DEPLOYMENT = f"{variables.DEPLOYMENT}=".encode()
COMPONENT = f"{variables.COMPONENT}=".encode()
_MAX_DEPTH = 32


def owner(pid: int) -> str:
    """``deployment/component`` of the process or of its nearest ancestor that has one; empty when there is none.

    Processes of other users cannot be read and count as having none.
    """
    for _ in range(_MAX_DEPTH):
        found = _named(pid)
        if found:
            return found
        try:
            pid = psutil.Process(pid).ppid()
        except (psutil.Error, ValueError):
            return ""
        if pid <= 1:
            return ""
    return ""


def _named(pid: int) -> str:
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    parts = [
        next((entry.removeprefix(key) for entry in entries if entry.startswith(key)), b"")
        for key in (DEPLOYMENT, COMPONENT)
    ]
    return "/".join(part.decode("utf-8", "replace") for part in parts) if all(parts) else ""
