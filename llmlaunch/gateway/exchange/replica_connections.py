"""Connections to replicas: plain ones to whoever speaks OpenAI's API, translated ones to FastChat's workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlaunch.controller.grants import worker_key
from llmlaunch.gateway.http1.open_files import OpenFiles
from llmlaunch.gateway.http1.upstream import UpstreamConnection
from llmlaunch.gateway.http1.upstream_pool import UpstreamPool
from llmlaunch.gateway.routing.route_table import FASTCHAT, RoutedReplica

if TYPE_CHECKING:
    from llmlaunch.gateway.fastchat.worker import FastChatWorker


class ReplicaConnections:
    """``seed``: what the keys of workers are derived from; "" means that this gateway knows none."""

    def __init__(self, files: OpenFiles, seed: str = "") -> None:
        self.pool = UpstreamPool(files)
        self.take = self.pool.take
        """Of a replica's key: an idle connection to it, or None."""
        self._seed = seed
        self._translated: dict[str, FastChatWorker] = {}

    async def connect(self, replica: RoutedReplica) -> UpstreamConnection:
        """A new connection. Raises OSError (TimeoutError is one; EMFILE: the last files are for others)."""
        lines = self._lines(replica)
        if replica.engine == FASTCHAT:
            return self._translation(replica, lines)
        return await self.pool.connect(replica.key, replica.host, replica.port, lines)

    def sweep(self, now: float, known: set[str]) -> None:
        """About once a second: forget what has to do with replicas that are not ``known`` any more."""
        for key in self._translated.keys() - known:
            del self._translated[key]
        self.pool.sweep(now, known)

    def _lines(self, replica: RoutedReplica) -> bytes:
        """Lines of a head that are the same for all requests to ``replica``: ``Host``, and the worker's key."""
        host = (b"[%b]:%d" if ":" in replica.host else b"%b:%d") % (replica.host.encode(), replica.port)
        if not replica.keyed or not self._seed:
            return b"host: %b\r\n" % host
        key = worker_key(self._seed, replica.key).encode()
        return b"host: %b\r\nauthorization: Bearer %b\r\n" % (host, key)

    def _translation(self, replica: RoutedReplica, lines: bytes) -> UpstreamConnection:
        """To a worker that needs a translator. Those are rare: nobody else pays for its import."""
        from llmlaunch.gateway.fastchat.transport import Translation
        from llmlaunch.gateway.fastchat.worker import FastChatWorker

        worker = self._translated.get(replica.key)
        if worker is None:
            worker = self._translated[replica.key] = FastChatWorker(replica.host, replica.port)
        connection = UpstreamConnection(self.pool, replica.key, lines)
        connection.connection_made(Translation(connection, worker))
        return connection
