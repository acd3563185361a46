"""How many requests a replica has answered, as the deployment's own gateway counts them.

Only read for a replica that is busy and does not answer its probe: one that goes on answering requests is healthy, however long its
probe has to wait behind them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmlaunch.planning.types import Component, ProcessSpec
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.core.types import Phase
from llmlaunch.supervision.request import RequestFailed, request

_TIMEOUT_S = 2.0
_ROW = re.compile(rb"^llmlaunch_gateway_requests_total\{(?P<labels>.*)\} (?P<count>[0-9.e+]+)$", re.MULTILINE)


class AnswerCounts:
    """:meth:`follow` takes note of where the gateway is."""

    def __init__(self) -> None:
        self._gateway = ""

    def follow(self, slots: Mapping[str, Slot]) -> None:
        """Note the address of the gateway that is ready, if there is one."""
        ready = (s for s in slots.values() if s.record.phase is Phase.READY)
        self._gateway = next((s.spec.address for s in ready if s.spec.component is Component.API), "")

    async def by(self, spec: ProcessSpec) -> int | None:
        """Requests that ``spec`` has answered successfully so far; None if unknown."""
        if spec.component is not Component.WORKER or not self._gateway:
            return None
        try:
            response = await request("GET", self._gateway + "/metrics", timeout_s=_TIMEOUT_S)
        except RequestFailed:
            return None
        return count(response.body, spec.address) if response.ok else None


def count(page: bytes, replica: str) -> int:
    """The requests of ``replica`` that ended with a status of 2xx, on a gateway's /metrics."""
    total = 0.0
    label = f'replica="{replica}"'.encode()
    for row in _ROW.finditer(page):
        if label in row["labels"] and b'status="2' in row["labels"]:
            total += float(row["count"])
    return int(total)
