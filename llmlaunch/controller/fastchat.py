"""What FastChat's own workers need of a controller beyond the protocol of ``wire.py``.

Its workers (``fastchat.serve.model_worker`` and its kin, fschat 0.2.36)

- register before they listen, and end themselves when that is not answered with 200: they are awaited, and listed as
  soon as their address answers as itself;
- send a heartbeat every 45 s only: the controller asks them itself, so that a dead one leaves within seconds. One that
  is silent may be at work (embeddings hold its event loop) and stays for two of its own heartbeats;
- register each model of a multi_model_worker alone, under one address: what the address says of itself counts;
- speak a protocol of their own to gateways, which ``/worker_get_conv_template`` gives away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from llmlaunch.controller import registry
from llmlaunch.controller.live_table import LiveTable
from llmlaunch.controller.probe_tasks import ProbeTasks
from llmlaunch.controller.table import RegisteredWorker, worker_from
from llmlaunch.controller.wire import FASTCHAT, RegisterWorker, WorkerStatus
from llmlaunch.controller.worker_probe import NotListeningError, ProbeFailedError, WorkerProber, parse_address

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
PROBE_EVERY_S = 4.0
"""Seconds between two questions to a worker that is listed."""
LISTEN_TIMEOUT_S = 120.0
"""Seconds in which an announced worker has to listen: it loads its other models first, if it has several."""
MAX_AWAITED = 256
MAX_REFUSED_CONNECTIONS = 2
"""Refused connections in a row by which a worker is known to be gone."""
_FORM = {"worker_name", "check_heart_beat", "worker_status"}
_FORM_MORE = {"multimodal"}


def is_fastchat_registration(body: RegisterWorker) -> bool:
    """Whether ``body`` is what FastChat's workers send, no field more or less."""
    given = body.model_fields_set
    return given >= _FORM and given <= _FORM | _FORM_MORE and body.worker_status is not None


def claims_nothing_more(body: RegisterWorker, own: WorkerStatus) -> bool:
    """Whether ``body`` claims nothing beyond what the worker says of itself."""
    return body.worker_status is not None and set(body.worker_status.model_names) <= set(own.model_names)


async def with_detected_engine(
    prober: WorkerProber, body: RegisterWorker, own: WorkerStatus
) -> RegisterWorker:
    """``body``, with FastChat's engine when its worker speaks FastChat's protocol."""
    if is_fastchat_registration(body) and await prober.has_template(
        parse_address(body.worker_name), own.model_names[0]
    ):
        return body.model_copy(update={"engine": FASTCHAT})
    return body


@dataclass(frozen=True, slots=True)
class _Awaited:
    request: RegisterWorker
    trusted: bool
    allowed_names: tuple[str, ...] | None
    until: float


class FastChatProber:
    """Those that are awaited, and the loop that asks them and the listed ones."""

    def __init__(self, prober: WorkerProber, table: LiveTable) -> None:
        self._prober, self._table = prober, table
        self._awaited: dict[str, _Awaited] = {}
        self._refused: dict[str, int] = {}
        """Listed workers at whose address nobody listened, and how often in a row."""

    def wait_for(
        self, request: RegisterWorker, *, trusted: bool, allowed_names: tuple[str, ...] | None = None
    ) -> bool:
        """Ask until its address answers. False: too many are awaited already."""
        name = request.worker_name
        if name not in self._awaited and len(self._awaited) >= MAX_AWAITED:
            return False
        if name not in self._awaited:
            log.info("%s registered but does not listen yet; it is listed as soon as it does", name)
        self._awaited[name] = _Awaited(
            request, trusted, allowed_names, self._table.clock() + LISTEN_TIMEOUT_S
        )
        return True

    def is_waiting_for(self, name: str) -> bool:
        return name in self._awaited

    def stop_waiting_for(self, name: str) -> None:
        """It is listed, or has left."""
        self._awaited.pop(name, None)

    async def run(self) -> None:
        """Ask for ever. A worker that is slow to answer holds up nobody else's turn."""
        probed_at: dict[str, float] = {}
        with ProbeTasks() as probes:
            while True:
                await asyncio.sleep(INTERVAL_S)
                now = self._table.clock()
                listed = {n: w for n, w in self._table.current.workers.items() if w.engine == FASTCHAT}
                self._refused = {n: count for n, count in self._refused.items() if n in listed}
                probed_at = {n: at for n, at in probed_at.items() if n in listed}
                for name in listed.keys() | self._awaited.keys():
                    if name in probes or now - probed_at.get(name, -PROBE_EVERY_S) < PROBE_EVERY_S:
                        continue
                    if name in listed:
                        probed_at[name] = now
                    probes.start(name, self._probe(name, listed))

    async def _probe(self, name: str, listed: Mapping[str, RegisteredWorker]) -> None:
        try:
            if name in listed:
                await self._probe_listed(name)
            else:
                await self._probe_awaited(name)
        except Exception:
            log.exception("could not ask %s", name)

    async def _probe_awaited(self, name: str) -> None:
        found = self._awaited.get(name)
        if found is None:
            return
        try:
            own = await self._prober.status(parse_address(name))
        except NotListeningError:
            if self._table.clock() > found.until:
                self.stop_waiting_for(name)
                log.warning("removed %s: it registered %g s ago and never listened", name, LISTEN_TIMEOUT_S)
            return
        except ProbeFailedError as error:
            self._reject(name, str(error))
            return
        if not claims_nothing_more(found.request, own):
            self._reject(name, "it serves other models than it registered")
            return
        request = await with_detected_engine(self._prober, found.request, own)
        present = self._table.current.workers.get(name)
        if self._awaited.pop(name, None) is None or (present and present.trusted and not found.trusted):
            return
        worker = worker_from(
            request, own, self._table.clock(), trusted=found.trusted, allowed_names=found.allowed_names
        )
        self._table.update(registry.register(self._table.current, worker))
        log.info("%s serves %s", name, ", ".join(worker.model_names))

    def _reject(self, name: str, why: str) -> None:
        self.stop_waiting_for(name)
        log.warning("%s is not listed: %s", name, why)

    async def _probe_listed(self, name: str) -> None:
        try:
            own = await self._prober.status(parse_address(name))
        except NotListeningError:
            self._refused[name] = self._refused.get(name, 0) + 1
            if self._refused[name] >= MAX_REFUSED_CONNECTIONS:
                self._table.update(registry.unregister(self._table.current, name)[0])
                log.warning("removed %s: nothing listens there", name)
            return
        except ProbeFailedError as error:
            log.info("%s", error)
            return
        self._refused.pop(name, None)
        self.stop_waiting_for(name)
        table = self._table.current
        worker = table.workers.get(name)
        if worker is None:
            return
        if tuple(dict.fromkeys(own.model_names)) != worker.model_names:
            table = registry.refresh(table, name, own)
        self._table.update(registry.heartbeat(table, name, own.queue_length, self._table.clock())[0])
