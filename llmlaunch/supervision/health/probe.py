"""Probes one process: whether it is ready, whether it is alive, whether its start makes progress."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmlaunch.common import http_client
from llmlaunch.common.http_client import Response
from llmlaunch.common.terminal_text import one_line
from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.core.liveness import ProbeLimits
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import Probed, Progressed
from llmlaunch.supervision.file_threads import FileThreads
from llmlaunch.supervision.health.start_progress import LINE_CHARACTERS, MovedBytes, ProgressLines
from llmlaunch.supervision.request import NoAnswer, RequestFailed, request

_LEAST_S, _MOST_S, _SHARE = 0.05, 0.5, 0.03
"""The least and the most seconds between two readiness probes, and their share of the time since the start: readiness is
noticed hardly later than it occurs."""
_SLOW_S = 0.5
"""An answer that takes longer may never come: from here on the process tree's CPU time is measured."""
_BUSY_STATUSES = (429, 503)
"""What a busy server may answer; SGLang does when a token for its probe took 20 s."""
_READ_S = 1.0
_MOVED_EVERY_S, _MOVED_SHARE = 5.0, 0.1
"""How often the bytes are counted that a starting process tree has moved, and at most which share of its start timeout that is."""
Emit = Callable[[Probed | Progressed], None]


class ProcessProbe:
    """Probes one incarnation of ``spec``.

    ``cpu_seconds`` returns the CPU time of its process tree so far, ``moved_bytes`` how many bytes it has moved, and both may block;
    ``answered`` returns how many requests it has answered. ``key`` is the key that it requires; "" means none.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        incarnation: int,
        log: Path,
        policy: Policy,
        emit: Emit,
        cpu_seconds: Callable[[], float],
        answered: Callable[[], Awaitable[int | None]],
        key: str = "",
        moved_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        self._key = key
        self._spec = spec
        self._incarnation = incarnation
        self._log = log
        self._policy = policy
        self._emit = emit
        self._cpu_seconds = cpu_seconds
        self._moved = MovedBytes(moved_bytes)
        self._file_threads = FileThreads()
        self._answered = answered
        self._answered_before: int | None = None
        self._timeout_s = ProbeLimits.of(spec, policy).timeout_s

    async def run(self, ready: bool) -> None:
        """Until cancelled: readiness until the first success (unless ``ready`` already), liveness from then on."""
        if not ready:
            paths = (self._spec.ready_path, self._spec.live_path)
            moving = asyncio.create_task(self._watch_bytes())
            try:
                with contextlib.closing(
                    ProgressLines(self._log, self._spec.progress_patterns, paths)
                ) as lines:
                    await self._until_ready(lines)
            finally:
                moving.cancel()
        while self._spec.live_path:
            await asyncio.sleep(self._policy.probe_every_s)
            self._emit(await self._alive())

    # ── readiness ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _until_ready(self, lines: ProgressLines) -> None:
        now = asyncio.get_running_loop().time
        began, seen, said = now(), "", ""
        # Half of what a start may take without progress, so that a failed probe can be reported when that is over.
        patience_s = min(self._policy.start_probe_timeout_s, self._spec.start_timeout_s / 2)
        timeout_s = max(self._timeout_s, patience_s)
        while True:
            probe = asyncio.create_task(self._probe(self._spec.ready_path, timeout_s))
            try:
                # Progress in the log counts while a server that is loading does not answer.
                while not (await asyncio.wait({probe}, timeout=_MOST_S))[0]:
                    self._report_progress(await self._newest(lines))
                answer = probe.result()
            finally:
                probe.cancel()
            if answer.ok:
                self._emit(Probed(self._incarnation, True, _note(answer.response)))
                return
            if answer.detail != said:
                said = answer.detail
                self._emit(Probed(self._incarnation, False, said))
            told = _progress(answer.response)
            if told and told != seen:
                seen = told
                self._report_progress(told)
            self._report_progress(await self._newest(lines))
            await asyncio.sleep(min(max(_LEAST_S, (now() - began) * _SHARE), _MOST_S))

    async def _newest(self, lines: ProgressLines) -> str:
        if not lines.wanted:
            return ""
        return await self._file_threads.run(f"looking for progress in {self._log}", lines.newest, "", _READ_S)

    async def _watch_bytes(self) -> None:
        """Until cancelled: whatever an engine prints, one that reads its model or downloads it goes on."""
        every_s = min(_MOVED_EVERY_S, self._spec.start_timeout_s * _MOVED_SHARE)
        while True:
            moved = await self._file_threads.run(
                f"counting what {self._spec.name} reads", self._moved.newest, "", _READ_S
            )
            if moved:
                self._emit(Progressed(self._incarnation, moved, counted=True))
            await asyncio.sleep(every_s)

    def _report_progress(self, progress: str) -> None:
        if progress:
            self._emit(Progressed(self._incarnation, progress))

    # ── liveness ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _alive(self) -> Probed:
        """One liveness probe. CPU time is only measured when the answer is late or missing."""
        probe = asyncio.create_task(self._probe(self._spec.live_path, self._timeout_s))
        try:
            await asyncio.wait({probe}, timeout=min(_SLOW_S, self._timeout_s / 4))
            meter = None if probe.done() else await _CpuMeter.start(self._cpu_seconds)
            answer = await probe
        finally:
            probe.cancel()
        if answer.ok or not answer.unanswered:
            self._answered_before = None
            return Probed(self._incarnation, answer.ok, answer.detail)
        if meter is None:
            meter = await _CpuMeter.start(self._cpu_seconds)
            await asyncio.sleep(_SLOW_S)
        cpu = await meter.read()
        more = await self._answered_since()
        return Probed(self._incarnation, False, answer.detail, unanswered=True, cpu=cpu, answered=more)

    async def _answered_since(self) -> int:
        """Requests answered since the previous unanswered probe; 0 for the first one."""
        before, now = self._answered_before, await self._answered()
        self._answered_before = now
        # A gateway that restarted counts from zero.
        return 0 if before is None or now is None else max(now - before, 0)

    # ── both ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _probe(self, path: str, timeout_s: float) -> _ProbeResult:
        if not path:
            return await self._connect(timeout_s)
        try:
            response = await request("GET", self._spec.address + path, token=self._key, timeout_s=timeout_s)
        except NoAnswer as error:
            hint = (
                "; raise `probe_timeout:` to allow more" if self._spec.component is Component.WORKER else ""
            )
            return _ProbeResult(False, error.message + (hint if error.timed_out else ""), unanswered=True)
        except RequestFailed as error:
            return _ProbeResult(False, error.message)
        if response.ok:
            return _ProbeResult(True, response=response)
        return _ProbeResult(False, f"status {response.status}", response.status in _BUSY_STATUSES, response)

    async def _connect(self, timeout_s: float) -> _ProbeResult:
        """Whether its port accepts connections: all that can be checked of a server without a probe path."""
        try:
            host = urlsplit(self._spec.address).hostname or ""
            await http_client.check_connection(host, self._spec.port, timeout_s=timeout_s)
        except http_client.TimedOut:
            return _ProbeResult(False, f"no connection within {timeout_s:g} s")
        except http_client.CannotConnect as error:
            return _ProbeResult(False, "connection refused" if error.refused else str(error))
        return _ProbeResult(True)


@dataclass(frozen=True, slots=True)
class _ProbeResult:
    ok: bool
    detail: str = ""
    unanswered: bool = False
    """As in :class:`Probed`."""
    response: Response | None = None


@dataclass(frozen=True, slots=True)
class _CpuMeter:
    """CPU time between two readings, as the number of CPUs kept busy."""

    cpu_seconds: Callable[[], float]
    began: float
    used: float

    @classmethod
    async def start(cls, cpu_seconds: Callable[[], float]) -> _CpuMeter:
        used = await asyncio.to_thread(cpu_seconds)
        return cls(cpu_seconds, asyncio.get_running_loop().time(), used)

    async def read(self) -> float:
        used = await asyncio.to_thread(self.cpu_seconds)
        elapsed = max(asyncio.get_running_loop().time() - self.began, 0.001)
        return max(used - self.used, 0.0) / elapsed


def _note(response: Response | None) -> str:
    """What a server that is ready says about how it runs, if its probe does: ``{"warning": …, "remark": …}``."""
    body = response.json() if response else None
    if not isinstance(body, dict):
        return ""
    told = [text for name in ("warning", "remark") if isinstance(text := body.get(name), str) and text]
    return one_line("; ".join(told))[:LINE_CHARACTERS]


def _progress(response: Response | None) -> str:
    """The progress that a server reports in its probe's body while it loads."""
    body = response.json() if response else None
    if not isinstance(body, dict):
        return ""
    told = body.get("progress") or body.get("note") or ""
    return one_line(_progress_text(told) if isinstance(told, dict) else str(told))[:LINE_CHARACTERS]


def _progress_text(progress: dict[str, Any]) -> str:
    """``{"text": "loading weights", "done_bytes": …, "total_bytes": …}`` → "loading weights 31 of 98 MiB"."""
    text = str(progress.get("text") or "")
    done, total = progress.get("done_bytes"), progress.get("total_bytes")
    if isinstance(done, int) and isinstance(total, int) and total > 0:
        return f"{text or 'loading'} {done >> 20} of {max(total >> 20, 1)} MiB"
    return text or ", ".join(f"{key} {value}" for key, value in progress.items())
