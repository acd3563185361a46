"""The worker's lifecycle status and loading progress, for /health, /ready, the log and the supervisor. Thread-safe."""

from __future__ import annotations

import logging
import threading
import time
from enum import StrEnum
from typing import Any

log = logging.getLogger(__name__)

LOG_EVERY_S = 2.0
"""Minimum time between two progress lines in the log."""


class Status(StrEnum):
    """What the worker is doing, as /health names it."""

    LOADING = "loading"
    OK = "ok"
    DRAINING = "draining"
    """Shutting down: running requests finish, new ones are refused."""
    FAILED = "failed"


class WorkerState:
    """Written by the loader and the shutdown, read by the endpoints."""

    def __init__(self, *, needs_controller: bool) -> None:
        self._lock = threading.Lock()
        self.status = Status.LOADING
        self.registered = False
        """Whether the worker is currently registered with the controller."""
        self._admitted = not needs_controller
        self.note = ""
        """Human-readable reason why the worker is not ready."""
        self._done = 0
        self._total = 0
        self._phase = "starting"
        self._logged_at = 0.0
        self._logged_phase = ""

    @property
    def ready(self) -> bool:
        """Whether the worker can serve requests and clients can reach it.

        Losing the controller later does not make a worker unready: gateways keep the routes they know.
        """
        return self.status is Status.OK and self._admitted

    def registration(self, registered: bool, why: str) -> None:
        """Record whether the worker is registered, and ``why`` not."""
        self.registered = registered
        self._admitted = self._admitted or registered
        self.note = "" if registered else why

    def progress(self, done_bytes: int, total_bytes: int, phase: str) -> None:
        """Record progress in ``phase`` ("loading weights"). Logs it at most every LOG_EVERY_S seconds."""
        with self._lock:
            self._done, self._total, self._phase = done_bytes, total_bytes, phase
            now = time.monotonic()
            finished = total_bytes > 0 and done_bytes >= total_bytes
            if phase == self._logged_phase and not finished and now - self._logged_at < LOG_EVERY_S:
                return
            self._logged_at, self._logged_phase = now, phase
        log.info("%s", self.progress_text())

    def progress_text(self) -> str:
        """Return the progress as text, for example "loading weights 120/260 MiB"."""
        if not self._total:
            return self._phase
        return f"{self._phase} {self._done >> 20}/{self._total >> 20} MiB"

    def report(self) -> dict[str, Any]:
        """Return the state as /health and /ready report it."""
        with self._lock:
            progress = {"done_bytes": self._done, "total_bytes": self._total, "text": self._phase}
        report: dict[str, Any] = {"status": str(self.status)}
        if self.status is Status.LOADING:
            report["progress"] = progress
        if self.note:
            report["note"] = self.note
        return report
