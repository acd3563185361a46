"""The pool of idle connections to replicas."""

from __future__ import annotations

import asyncio
import errno
import os
import time

from llmlaunch.gateway.http1.coalesce import Coalescer
from llmlaunch.gateway.http1.framing import ResponseHead
from llmlaunch.gateway.http1.head_cache import HeadCache
from llmlaunch.gateway.http1.open_files import OpenFiles
from llmlaunch.gateway.http1.upstream import UpstreamConnection

CONNECT_TIMEOUT_S = 3.0
IDLE_S = 4.0
"""Seconds that a connection may be idle. uvicorn, which most engines use, closes them after 5."""
MAX_IDLE = 256
"""Idle connections that are kept for one replica."""


class UpstreamPool:
    """Idle connections by replica, last used first. Implements ``upstream.ConnectionOwner``."""

    def __init__(self, files: OpenFiles) -> None:
        self._loop = asyncio.get_running_loop()
        self._files = files
        self._idle: dict[str, list[UpstreamConnection]] = {}
        self.heads: HeadCache[ResponseHead] = HeadCache()
        self.events = Coalescer(self._loop.call_soon)

    def take(self, key: str) -> UpstreamConnection | None:
        """An idle connection to the replica of that ``key``; None when there is none."""
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            if not connection.closed:
                return connection
        return None

    async def connect(self, key: str, host: str, port: int, lines: bytes) -> UpstreamConnection:
        """Open a new connection; ``key`` and ``lines`` are those of :class:`UpstreamConnection`.

        Raises OSError: TimeoutError after :data:`CONNECT_TIMEOUT_S`; EMFILE when too few file descriptors are left.
        """
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, protocol = await self._loop.create_connection(
                lambda: UpstreamConnection(self, key, lines), host, port
            )
        files = self._files
        number = protocol.fileno()
        if number >= files.evict_from and not files.make_room(number) and number >= files.reserved_from:
            protocol.drop()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return protocol

    def give(self, connection: UpstreamConnection) -> None:
        """Take back ``connection``, which is idle."""
        idle = self._idle.setdefault(connection.key, [])
        if len(idle) >= MAX_IDLE:
            connection.drop()
            return
        connection.idle_since = time.monotonic()
        idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """Remove ``connection``, which is closed."""
        idle = self._idle.get(connection.key)
        if idle and connection in idle:
            idle.remove(connection)

    def sweep(self, now: float, known: set[str]) -> None:
        """Close connections that were idle too long, and all idle ones to replicas that are not ``known`` any more.

        Called about once a second.
        """
        self.events.look()
        for key, idle in list(self._idle.items()):
            keep_from = now - IDLE_S if key in known else now + 1
            for connection in [c for c in idle if c.idle_since < keep_from]:
                idle.remove(connection)
                connection.drop()
            if not idle:
                del self._idle[key]

    def drop_idle(self, most: int) -> int:
        """Close up to ``most`` idle connections; return how many."""
        found = [connection for idle in self._idle.values() for connection in idle][:most]
        for connection in found:
            self._idle[connection.key].remove(connection)
            connection.drop()
        return len(found)

    def close(self) -> None:
        """Close every idle connection."""
        for idle in self._idle.values():
            for connection in idle:
                connection.drop()
        self._idle.clear()
