"""What the answer to a probe says about the replica."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmlaunch.gateway.exchange.silence_probe import SilenceProbe
from llmlaunch.gateway.routing.health.silence_watch import PROBE_BODIES
from llmlaunch.gateway.routing.route_table import RoutedReplica


class Replica:
    """Stands for the connections to a replica and for the watch: it answers a probe with a status."""

    lines = b"host: h\r\n"

    def __init__(self, status: int) -> None:
        self.status = status
        self.told: list[str] = []

    async def connect(self, replica: RoutedReplica) -> Any:
        return self

    def send(self, receiver: Any, head: bytes, body: bytes) -> None:
        receiver.answer_began(self, None)
        receiver.answer_ended()

    def answered(self, replica: RoutedReplica, probe: Any) -> None:
        self.told.append("answered")

    def unanswered(self, replica: RoutedReplica, probe: Any) -> None:
        self.told.append("unanswered")


@pytest.mark.parametrize("path", PROBE_BODIES)
def test_an_engine_that_trips_over_a_request_that_no_engine_takes_is_alive(path: bytes) -> None:
    async def told(status: int) -> list[str]:
        fake: Any = Replica(status)
        probe = SilenceProbe(
            fake, lambda: b"req-1", fake, RoutedReplica("http://h:1", "h", 1, ("m",)), path, "m"
        )
        await probe._task
        return list(fake.told)

    for status in (200, 404, 422):
        assert asyncio.run(told(status)) == ["answered"]
    after_error = "unanswered" if PROBE_BODIES[path] else "answered"
    for status in (500, 501, 503):
        assert asyncio.run(told(status)) == [after_error]
