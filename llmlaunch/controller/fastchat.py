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
from llmlaunch.controller.worker_probe import Asker, NobodyThereError, NoStatusError, parse_address

log = logging.getLogger(__name__)

TURN_S = 1.0
ASK_S = 4.0
"""Seconds between two questions to a worker that is listed."""
AWAIT_S = 120.0
"""Seconds in which an announced worker has to listen: it loads its other models first, if it has several."""
AWAITED_MOST = 256
ABSENCES = 2
"""Refused connections in a row by which a worker is known to be gone."""
_FORM = {"worker_name", "check_heart_beat", "worker_status"}
_FORM_MORE = {"multimodal"}


def is_form(body: RegisterWorker) -> bool:
    """Whether ``body`` is what FastChat's workers send, no field more or less."""
    given = body.model_fields_set
    return given >= _FORM and given <= _FORM | _FORM_MORE and body.worker_status is not None


def accepted(body: RegisterWorker, own: WorkerStatus) -> bool:
    """Whether ``body`` claims nothing beyond what the worker says of itself."""
    return body.worker_status is not None and set(body.worker_status.model_names) <= set(own.model_names)


async def recognised(asker: Asker, body: RegisterWorker, own: WorkerStatus) -> RegisterWorker:
    """``body``, with FastChat's engine when its worker speaks FastChat's protocol."""
    if is_form(body) and await asker.has_template(parse_address(body.worker_name), own.model_names[0]):
        return body.model_copy(update={"engine": FASTCHAT})
    return body


@dataclass(frozen=True, slots=True)
class _Awaited:
    request: RegisterWorker
    trusted: bool
    granted: tuple[str, ...] | None
    until: float


class FastChatWorkers:
    """Those that are awaited, and the loop that asks them and the listed ones."""

    def __init__(self, asker: Asker, table: LiveTable) -> None:
        self._asker, self._table = asker, table
        self._awaited: dict[str, _Awaited] = {}
        self._absences: dict[str, int] = {}
        """Listed workers at whose address nobody listened, and how often in a row."""

    def wait_for(
        self, request: RegisterWorker, *, trusted: bool, granted: tuple[str, ...] | None = None
    ) -> bool:
        """Ask until its address answers. False: too many are awaited already."""
        name = request.worker_name
        if name not in self._awaited and len(self._awaited) >= AWAITED_MOST:
            return False
        if name not in self._awaited:
            log.info("%s registered but does not listen yet; it is listed as soon as it does", name)
        self._awaited[name] = _Awaited(request, trusted, granted, self._table.clock() + AWAIT_S)
        return True

    def awaits(self, name: str) -> bool:
        return name in self._awaited

    def arrived(self, name: str) -> None:
        """It is listed, or has left."""
        self._awaited.pop(name, None)

    async def run(self) -> None:
        """Ask for ever. A worker that is slow to answer holds up nobody else's turn."""
        asked: dict[str, float] = {}
        with ProbeTasks() as asking:
            while True:
                await asyncio.sleep(TURN_S)
                now = self._table.clock()
                listed = {n: w for n, w in self._table.current.workers.items() if w.engine == FASTCHAT}
                self._absences = {n: count for n, count in self._absences.items() if n in listed}
                asked = {n: at for n, at in asked.items() if n in listed}
                for name in listed.keys() | self._awaited.keys():
                    if name in asking or now - asked.get(name, -ASK_S) < ASK_S:
                        continue
                    if name in listed:
                        asked[name] = now
                    asking.start(name, self._turn(name, listed))

    async def _turn(self, name: str, listed: Mapping[str, RegisteredWorker]) -> None:
        try:
            if name in listed:
                await self._ask(name)
            else:
                await self._look_for(name)
        except Exception:
            log.exception("could not ask %s", name)

    async def _look_for(self, name: str) -> None:
        found = self._awaited.get(name)
        if found is None:
            return
        try:
            own = await self._asker.status(parse_address(name))
        except NobodyThereError:
            if self._table.clock() > found.until:
                self.arrived(name)
                log.warning("removed %s: it registered %g s ago and never listened", name, AWAIT_S)
            return
        except NoStatusError as error:
            self._forget(name, str(error))
            return
        if not accepted(found.request, own):
            self._forget(name, "it serves other models than it registered")
            return
        request = await recognised(self._asker, found.request, own)
        present = self._table.current.workers.get(name)
        if self._awaited.pop(name, None) is None or (present and present.trusted and not found.trusted):
            return
        worker = worker_from(request, own, self._table.clock(), trusted=found.trusted, granted=found.granted)
        self._table.update(registry.register(self._table.current, worker))
        log.info("%s serves %s", name, ", ".join(worker.model_names))

    def _forget(self, name: str, why: str) -> None:
        self.arrived(name)
        log.warning("%s is not listed: %s", name, why)

    async def _ask(self, name: str) -> None:
        try:
            own = await self._asker.status(parse_address(name))
        except NobodyThereError:
            self._absences[name] = self._absences.get(name, 0) + 1
            if self._absences[name] >= ABSENCES:
                self._table.update(registry.unregister(self._table.current, name)[0])
                log.warning("removed %s: nothing listens there", name)
            return
        except NoStatusError as error:
            log.info("%s", error)
            return
        self._absences.pop(name, None)
        self.arrived(name)
        table = self._table.current
        worker = table.workers.get(name)
        if worker is None:
            return
        if tuple(dict.fromkeys(own.model_names)) != worker.model_names:
            table = registry.refresh(table, name, own)
        self._table.update(registry.heartbeat(table, name, own.queue_length, self._table.clock())[0])
