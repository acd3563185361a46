"""What FastChat's own workers need of a controller beyond the protocol of ``wire.py``.

Its workers (``fastchat.serve.model_worker`` and its kin, fschat 0.2.36)

- register before they listen, and exit when that is not answered with 200: they are listed as soon as their address
  answers for itself;
- send a heartbeat every 45 s only: the controller probes them itself, so that a dead one is removed within seconds. One that
  does not answer may be busy (embeddings block its event loop) and stays for two of its own heartbeats;
- register each model of a multi_model_worker separately, under one address: the list that the address returns counts;
- speak a protocol of their own to gateways; they are recognized by ``/worker_get_conv_template``.
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
"""Seconds between two probes of a worker that is listed."""
LISTEN_TIMEOUT_S = 120.0
"""Seconds after its registration in which a worker has to listen: if it has several models, it loads the others first."""
MAX_AWAITED = 256
MAX_REFUSED_CONNECTIONS = 2
"""Refused connections in a row after which a worker counts as gone."""
_FORM = {"worker_name", "check_heart_beat", "worker_status"}
_FORM_MORE = {"multimodal"}


def is_fastchat_registration(body: RegisterWorker) -> bool:
    """Whether ``body`` has exactly the fields that FastChat's workers send."""
    given = body.model_fields_set
    return given >= _FORM and given <= _FORM | _FORM_MORE and body.worker_status is not None


def claims_nothing_more(body: RegisterWorker, own: WorkerStatus) -> bool:
    """Whether ``body`` names no model beyond those that the worker itself reports."""
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
    """The workers that are not listening yet, and the loop that probes them and the listed ones."""

    def __init__(self, prober: WorkerProber, table: LiveTable) -> None:
        self._prober, self._table = prober, table
        self._awaited: dict[str, _Awaited] = {}
        self._refused: dict[str, int] = {}
        """Refused connections in a row, by listed worker."""

    def wait_for(
        self, request: RegisterWorker, *, trusted: bool, allowed_names: tuple[str, ...] | None = None
    ) -> bool:
        """Probe its address until it answers, and then list it. False: too many are awaited already."""
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
        """Whether the worker has registered and does not listen yet."""
        return name in self._awaited

    def stop_waiting_for(self, name: str) -> None:
        """Forget a worker that is listed now, or has unregistered."""
        self._awaited.pop(name, None)

    async def run(self) -> None:
        """Probe until cancelled. A worker that is slow to answer delays no other."""
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
            log.exception("could not probe %s", name)

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
