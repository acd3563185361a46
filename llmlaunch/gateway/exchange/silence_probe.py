"""A minimal request of the gateway's own, which tells a slow replica from one that is frozen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from llmlaunch.gateway.exchange.replica_connections import ReplicaConnections
from llmlaunch.gateway.failures import FailureKind
from llmlaunch.gateway.http1 import headers
from llmlaunch.gateway.http1.framing import BodyFraming, ResponseHead
from llmlaunch.gateway.http1.upstream import UpstreamConnection
from llmlaunch.gateway.routing.health.silence_watch import PROBE_BODIES, SilenceWatch
from llmlaunch.gateway.routing.route_table import RoutedReplica


class SilenceProbe:
    """One probe of one replica. Implements ``upstream.ResponseReceiver`` and ``silence_watch.Probe``."""

    decoding = False

    def __init__(
        self,
        connections: ReplicaConnections,
        new_identity: Callable[[], bytes],
        watch: SilenceWatch,
        replica: RoutedReplica,
        path: bytes,
        model: str,
    ) -> None:
        """Send ``replica`` the cheapest request for ``model`` at ``path``, and report to ``watch`` whether it answers."""
        self._connections = connections
        self._new_identity = new_identity
        self._watch = watch
        self._replica = replica
        self._path = path
        self._model = model
        self._connection: UpstreamConnection | None = None
        self._status = 0
        self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        replica = self._replica
        try:
            self._connection = connection = await self._connections.connect(replica)
        except OSError:
            self._watch.unanswered(replica, self)
            return
        body = json.dumps({"model": replica.engine_model or self._model} | PROBE_BODIES[self._path]).encode()
        lines = b"content-type: application/json\r\n"
        path, identity = replica.prefix + self._path, self._new_identity()
        head = headers.to_worker(b"POST", path, connection.lines, lines, identity, len(body))
        connection.send(self, head, body)

    def drop(self) -> None:
        """Cancel the probe without a report."""
        self._task.cancel()
        if self._connection is not None:
            self._connection.drop()

    def answer_began(self, head: ResponseHead, body: BodyFraming) -> None:
        """Keep the status."""
        self._status = head.status

    def answer_bytes(self, data: bytes) -> None:
        """Ignore the body."""

    def answer_ended(self) -> None:
        """Report that the replica answered, unless with a server error to a valid request.

        Where the request is none (PROBE_BODIES), an error says nothing but that the replica is alive: many servers of sound
        and pictures trip over what is missing.
        """
        self._connection = None
        if self._status < 500 or not PROBE_BODIES[self._path]:
            self._watch.answered(self._replica, self)
        else:
            self._watch.unanswered(self._replica, self)

    def answer_broke(self, why: str, kind: FailureKind, began: bool) -> None:
        """Report the replica as silent."""
        self._connection = None
        self._watch.unanswered(self._replica, self)
