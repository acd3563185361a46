"""Connections to replicas: direct ones to workers with OpenAI's API, translated ones to FastChat's workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmlaunch.controller.tokens import worker_key
from llmlaunch.gateway.http1.open_files import OpenFiles
from llmlaunch.gateway.http1.upstream import UpstreamConnection
from llmlaunch.gateway.http1.upstream_pool import UpstreamPool
from llmlaunch.gateway.routing.route_table import FASTCHAT, RoutedReplica

if TYPE_CHECKING:
    from llmlaunch.gateway.fastchat.worker import FastChatWorker


class ReplicaConnections:
    """``seed``: the workers' API keys are derived from it; "": this gateway cannot derive them."""

    def __init__(self, files: OpenFiles, seed: str = "") -> None:
        self.pool = UpstreamPool(files)
        self.take = self.pool.take
        """Takes a replica's key; returns an idle connection to it, or None."""
        self._seed = seed
        self._translated: dict[str, FastChatWorker] = {}

    async def connect(self, replica: RoutedReplica) -> UpstreamConnection:
        """Open a new connection. Raises OSError: TimeoutError, or EMFILE when too few file descriptors are left."""
        lines = self._lines(replica)
        if replica.engine == FASTCHAT:
            return self._translation(replica, lines)
        return await self.pool.connect(replica.key, replica.host, replica.port, lines)

    def sweep(self, now: float, known: set[str]) -> None:
        """Close idle connections, and those to replicas that are not ``known`` any more. Called about once a second."""
        for key in self._translated.keys() - known:
            del self._translated[key]
        self.pool.sweep(now, known)

    def _lines(self, replica: RoutedReplica) -> bytes:
        """The header lines that all requests to ``replica`` have: ``Host``, and the worker's API key."""
        host = (b"[%b]:%d" if ":" in replica.host else b"%b:%d") % (replica.host.encode(), replica.port)
        if not replica.keyed or not self._seed:
            return b"host: %b\r\n" % host
        key = worker_key(self._seed, replica.key).encode()
        return b"host: %b\r\nauthorization: Bearer %b\r\n" % (host, key)

    def _translation(self, replica: RoutedReplica, lines: bytes) -> UpstreamConnection:
        """A translated connection. Such workers are rare, so the translation is imported when it is needed."""
        from llmlaunch.gateway.fastchat.transport import TranslatingTransport
        from llmlaunch.gateway.fastchat.worker import FastChatWorker

        worker = self._translated.get(replica.key)
        if worker is None:
            worker = self._translated[replica.key] = FastChatWorker(replica.host, replica.port)
        connection = UpstreamConnection(self.pool, replica.key, lines)
        connection.connection_made(TranslatingTransport(connection, worker))
        return connection
