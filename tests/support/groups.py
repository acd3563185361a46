"""Control groups of a test's home: killed all at once, its processes leave nobody to remove them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from llmlaunch.supervision.processes import cgroups


@contextlib.contextmanager
def removed(home: Path) -> Iterator[None]:
    """Remove the groups that are known at the beginning, at the end."""
    known: list[str] = []
    for file in home.glob("state/*/state.json"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            known += [kept["cgroup"] for kept in json.loads(file.read_text())["processes"]]
    yield
    for group in known:
        cgroups.remove(group)
