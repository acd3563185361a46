"""Accepts TLS connections.

asyncio reports a connection only after its handshake. Until then it takes a file descriptor that the gateway does not
know of, and clients that never finish a handshake could use up all of them. So this module accepts the connections, and
closes the oldest handshakes when descriptors run short.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

from llmlaunch.gateway.http1.open_files import OpenFiles
from llmlaunch.gateway.http1.tls import HANDSHAKE_S, SHUTDOWN_S

log = logging.getLogger(__name__)

ACCEPTS_PER_TURN = 64
"""Connections that are accepted in one turn of the event loop."""
SLOW_S = 1.0
"""Seconds after which a handshake is slow: slow ones are closed first."""
RETRY_S = 0.1
"""Seconds to wait before accepting again when no file descriptor is left."""


class TlsAcceptor:
    """Serves ``protocol`` over TLS on the listening ``sock``, from :meth:`start` to :meth:`close`."""

    def __init__(
        self,
        sock: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        files: OpenFiles,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._protocol = protocol
        self._context = context
        self._files = files
        self._handshakes: dict[socket.socket, tuple[float, asyncio.Task[None]]] = {}
        """The start time and the task of each handshake, the oldest first."""
        self._closed = False

    def start(self) -> None:
        """Listen and accept connections."""
        self._sock.setblocking(False)
        self._sock.listen(self._files.backlog)
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting, and abort all handshakes."""
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        self.close_oldest(len(self._handshakes))

    def close_oldest(self, most: int) -> int:
        """Abort up to ``most`` handshakes, the oldest first; return how many."""
        found = list(self._handshakes)[:most]
        for sock in found:
            del self._handshakes[sock]
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # its transport notices, and closes it
        return len(found)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                log.warning("cannot accept a connection: %s", error.strerror)
                self.close_oldest(self._files.batch)
                self._loop.remove_reader(self._sock.fileno())
                self._loop.call_later(RETRY_S, self._resume)
                return
            sock.setblocking(False)
            self._make_room(sock.fileno())
            task = self._loop.create_task(self._shake_hands(sock))
            self._handshakes[sock] = self._loop.time(), task

    def _make_room(self, number: int) -> None:
        """A new connection has the descriptor ``number``: near the limit close slow handshakes, else idle connections."""
        if number < self._files.evict_from:
            return
        late = self._loop.time() - SLOW_S
        slow = sum(began < late for began, _ in self._handshakes.values())
        if not self.close_oldest(min(slow, self._files.batch)) and not self._files.make_room(number):
            self.close_oldest(1)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._sock.fileno(), self._accept)

    async def _shake_hands(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                sock,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except (OSError, ssl.SSLError) as error:
            log.debug("a handshake failed: %s", error)
        finally:
            self._handshakes.pop(sock, None)
