"""Is it ready, does it live, does its start go on: one task that watches one process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmlaunch.planning.types import ProcessSpec
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import Probed, Progressed
from llmlaunch.supervision.request import RequestFailed, Response, request

_LEAST_S, _MOST_S, _SHARE = 0.05, 0.5, 0.03
"""Seconds between two readiness probes, and their share in what the start has taken so far: a start is known to be over
after hardly more than it took."""
_READ_BYTES = 256 << 10
_LINE_CHARACTERS = 200
Emit = Callable[[Probed | Progressed], None]


async def watch(
    spec: ProcessSpec, incarnation: int, log: Path, ready: bool, policy: Policy, emit: Emit
) -> None:
    """Probe until cancelled: readiness until the first success (unless ``ready`` already), liveness from then on."""
    if not ready:
        await _until_ready(spec, incarnation, log, policy, emit)
    while True:
        await asyncio.sleep(policy.probe_every_s)
        ok, detail, _ = await _probe(spec.address + spec.live_path, policy)
        emit(Probed(incarnation, ok, detail))


async def _until_ready(spec: ProcessSpec, incarnation: int, log: Path, policy: Policy, emit: Emit) -> None:
    now = asyncio.get_running_loop().time
    began, seen, signs = now(), "", _LogSigns(log, spec.progress_patterns)
    while True:
        ok, _, response = await _probe(spec.address + spec.ready_path, policy)
        if ok:
            emit(Probed(incarnation, True, _remark(response)))
            return
        told = _progress(response)
        if told and told != seen:
            seen = told
            emit(Progressed(incarnation, told))
        if printed := signs.newest():
            emit(Progressed(incarnation, printed))
        await asyncio.sleep(min(max(_LEAST_S, (now() - began) * _SHARE), _MOST_S))


async def _probe(url: str, policy: Policy) -> tuple[bool, str, Response | None]:
    try:
        response = await request("GET", url, timeout_s=policy.probe_timeout_s)
    except RequestFailed as error:
        return False, error.message, None
    return response.ok, "" if response.ok else f"status {response.status}", response


def _remark(response: Response | None) -> str:
    """What a server that is ready wants people to know of how it runs: ``{"warning": …}``."""
    body = response.json() if response else None
    told = body.get("warning") if isinstance(body, dict) else None
    return told[:_LINE_CHARACTERS] if isinstance(told, str) else ""


def _progress(response: Response | None) -> str:
    """What a server that is still loading says of it in its probe's body."""
    body = response.json() if response else None
    if not isinstance(body, dict):
        return ""
    told = body.get("progress") or body.get("note") or ""
    return (_in_words(told) if isinstance(told, dict) else str(told))[:_LINE_CHARACTERS]


def _in_words(progress: dict[str, Any]) -> str:
    """``{"text": "loading weights", "done_bytes": …, "total_bytes": …}`` → "loading weights 31 of 98 MiB"."""
    text = str(progress.get("text") or "")
    done, total = progress.get("done_bytes"), progress.get("total_bytes")
    if isinstance(done, int) and isinstance(total, int) and total > 0:
        return f"{text or 'loading'} {done >> 20} of {max(total >> 20, 1)} MiB"
    return text or ", ".join(f"{key} {value}" for key, value in progress.items())


class _LogSigns:
    """New lines of a log that match a pattern of progress."""

    def __init__(self, log: Path, patterns: tuple[str, ...]) -> None:
        self._log = log
        self._patterns = [compiled for pattern in patterns if (compiled := _compile(pattern))]
        self._offset = 0
        self._last = ""

    def newest(self) -> str:
        """The last new line that shows progress and differs from the one before; empty when there is none."""
        if not self._patterns:
            return ""
        try:
            with self._log.open("rb") as log:
                log.seek(self._offset)
                data = log.read(_READ_BYTES)
        except OSError:
            return ""
        self._offset += len(data)
        # Progress bars overwrite themselves with carriage returns.
        lines = data.decode(errors="replace").replace("\r", "\n").split("\n")
        for line in reversed(lines):
            if line != self._last and any(pattern.search(line) for pattern in self._patterns):
                self._last = line
                return line.strip()[:_LINE_CHARACTERS]
        return ""


def _compile(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error:
        return None
