"""How much main memory this machine, or the container, has."""

from __future__ import annotations

from pathlib import Path

import psutil

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Of control groups, version 2 and 1 (Documentation/admin-guide/cgroup-v2.rst, "memory.max")."""


def main_memory() -> int:
    """Bytes that the processes of this machine, or of this container, can have together."""
    found = [int(psutil.virtual_memory().total)]
    for path in _LIMITS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # "max" is no limit
            found.append(int(text))
    return min(found)
