"""Concurrent probes, at most one for each worker, so that a slow one delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Self


class ProbeTasks:
    """A context manager: whatever still runs at its end is cancelled."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, worker: str) -> bool:
        return worker in self._running

    def start(self, worker: str, probe: Coroutine[Any, Any, None]) -> None:
        """Run ``probe`` of ``worker``, which must not be probed already."""
        task = self._running[worker] = asyncio.create_task(probe)
        task.add_done_callback(lambda _: self._running.pop(worker, None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for task in list(self._running.values()):
            task.cancel()
