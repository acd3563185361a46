"""Tells the controller what the supervisor knows: workers that cannot register themselves, workers that are gone, the served names.

The protocol is that of ``controller/wire.py``. A request that fails is repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmlaunch.common import process_identity
from llmlaunch.common.heartbeat import HEARTBEAT_S
from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.context_length import ask_context_length
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.core.types import Phase, Stage
from llmlaunch.supervision.credentials import key_of
from llmlaunch.supervision.request import RequestFailed, request

_RETRY_S = 0.5
_DRAIN_POLL_S = 0.2
_IDLE_ANSWERS = 2
"""Answers in a row that mean that a worker is drained: one of them may be older than the last request."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Controller:
    address: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A worker to be registered: its spec and its process."""

    spec: ProcessSpec
    pid: int | None


class Registrar:
    """:meth:`follow` takes the state, and the task :meth:`run` sends it to the controller."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._controller: _Controller | None = None
        self._wanted: dict[str, _Wanted] = {}
        self._serving: set[str] = set()
        self._to_unregister: set[str] = set()
        self._expected: tuple[str, ...] = ()
        self._registered: set[str] = set()
        self._lengths: dict[str, tuple[int | None, int]] = {}
        """By address: a process, and the context length that it says."""
        self._sent_expected: tuple[str, ...] | None = None
        self._changed = asyncio.Event()
        self._last_error = ""

    def follow(self, slots: Mapping[str, Slot], expected: tuple[str, ...]) -> None:
        """Take the current state. Cheap: called after every change."""
        controller, serving, wanted = None, set(), {}
        for slot in slots.values():
            spec, record = slot.spec, slot.record
            ready = record.phase is Phase.READY
            if spec.component is Component.CONTROLLER and ready:
                controller = _Controller(spec.address, record.incarnation)
            if spec.component is Component.WORKER and (ready or record.stage is Stage.DRAIN):
                serving.add(spec.address)
                if not spec.self_registering:
                    wanted[spec.address] = _Wanted(spec, record.pid)
        new = (controller, wanted, serving, expected)
        if new == (self._controller, self._wanted, self._serving, self._expected):
            return
        if controller != self._controller:
            self._registered, self._sent_expected, self._to_unregister = set(), None, set()
        self._to_unregister = (self._to_unregister | (self._serving - serving)) - serving
        # A worker whose spec has changed (its names, its concurrency) is registered again.
        self._registered -= {a for a in self._registered if wanted.get(a) != self._wanted.get(a)}
        self._controller, self._wanted, self._serving, self._expected = new
        self._changed.set()

    async def run(self) -> None:
        """Send what has changed, and heartbeats, until cancelled."""
        beat = time.monotonic()
        while True:
            pause = _RETRY_S if not self._up_to_date() else max(beat + HEARTBEAT_S - time.monotonic(), 0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), pause if self._controller else None)
            self._changed.clear()
            controller = self._controller
            if controller is None:
                continue
            due = time.monotonic() >= beat + HEARTBEAT_S
            if due:
                beat = time.monotonic()
            try:
                await self._bring_up_to_date(controller, due)
                self._last_error = ""
            except RequestFailed as error:
                if error.message != self._last_error:
                    log.warning("controller at %s: %s", controller.address, error.message)
                    self._last_error = error.message

    def _up_to_date(self) -> bool:
        return (
            self._sent_expected == self._expected
            and not self._to_unregister
            and self._registered == set(self._wanted)
        ) or self._controller is None

    async def _bring_up_to_date(self, controller: _Controller, beat: bool) -> None:
        if self._sent_expected != (expected := self._expected):
            await self._post(controller, "/set_expected", {"names": list(expected)})
            self._sent_expected = expected
        for address in sorted(self._to_unregister):
            await self._post(controller, "/unregister_worker", {"worker_name": address})
            self._to_unregister.discard(address)
            self._registered.discard(address)
        if beat:
            for address in sorted(self._registered):
                answer = await self._post(controller, "/receive_heart_beat", {"worker_name": address})
                if not (isinstance(answer, dict) and answer.get("exist")):
                    self._registered.discard(address)
        for address, wanted in sorted(self._wanted.items()):
            if address not in self._registered and self._controller == controller:
                length = await self._context_length(wanted)
                await self._post(controller, "/register_worker", _registration(wanted, length))
                self._registered.add(address)
                spec = wanted.spec
                log.info("registered %s (%s) as %s", spec.name, address, ", ".join(spec.names))

    async def _context_length(self, wanted: _Wanted) -> int | None:
        spec = wanted.spec
        if spec.max_model_len:
            return spec.max_model_len
        pid, length = self._lengths.get(spec.address, (None, 0))
        if not length or pid != wanted.pid:
            length = await ask_context_length(spec, key_of(self._token, spec)) or 0
            self._lengths[spec.address] = wanted.pid, length
        return length or None

    async def _post(self, controller: _Controller, path: str, body: dict[str, Any]) -> Any:
        response = await request("POST", controller.address + path, body, token=self._token)
        if not response.ok:
            detail = response.body[:300].decode(errors="replace")
            raise RequestFailed(f"POST {path} answered with status {response.status}: {detail}")
        return response.json()

    async def drain(self, address: str, grace_s: float, go_on: Callable[[], bool]) -> None:
        """Return once nothing is in flight at ``address``, after ``grace_s`` seconds, if the controller does not know, or as soon as
        ``go_on`` returns False.
        """
        end, idle = time.monotonic() + grace_s, 0
        while (controller := self._controller) and go_on() and time.monotonic() < end:
            try:
                answer = await self._post(controller, "/drain_worker", {"worker_name": address})
            except RequestFailed:
                return
            if not isinstance(answer, dict) or not answer.get("exist"):
                return
            idle = idle + 1 if not answer.get("in_flight") else 0
            if idle >= _IDLE_ANSWERS:
                return
            await asyncio.sleep(_DRAIN_POLL_S)


def _registration(worker: _Wanted, max_model_len: int | None) -> dict[str, Any]:
    """A ``controller.wire.RegisterWorker``: the supervisor vouches for an engine that speaks no such protocol."""
    spec = worker.spec
    process = process_identity.identify(worker.pid) if worker.pid is not None else None
    return {
        "worker_name": spec.address,
        "check_heart_beat": True,
        "worker_status": {"model_names": list(spec.names) or [spec.model], "speed": 1.0, "queue_length": 0},
        "component": spec.name,
        "engine": spec.engine,
        "engine_model": spec.engine_model or None,
        "kind": spec.kind or None,
        "max_concurrency": spec.max_concurrency,
        "request_timeout_s": spec.request_timeout_s,
        "max_model_len": max_model_len,
        "keyed": bool(spec.key_variable),
        "verified": True,
        "probe_path": spec.live_path,
        "pid": process.pid if process else None,
        "pid_started": process.started if process else 0,
    }
