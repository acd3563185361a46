"""How our own HTTP servers (controller, worker) bind, run and end.

Binding comes first and apart, so that a taken port is one clear message before anything expensive is imported.
Signals: SIGTERM ends with 0, SIGINT with 130; both let requests in flight finish within the grace. A second signal
has its default action: the kernel ends the process at once, whatever Python is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import math
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from llmlaunch.common import signals
from llmlaunch.common.addresses import url
from llmlaunch.common.browser_guard import Door, Refusal, not_json
from llmlaunch.common.error_envelope import INVALID_REQUEST, envelope
from llmlaunch.common.output import ignore_write_errors
from llmlaunch.errors import LlmlaunchError, PortTakenError, StartError, UsageError

BACKLOG = 1024
KEEP_ALIVE_S = 75
"""An idle connection stays open for longer than clients keep it (httpx: 5 s): who closes first must not be the server,
or a request that is already on its way is answered by a reset."""
LOG_LEVELS = ("debug", "info", "warning", "error")

log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket on ``host`` (name, IPv4 or IPv6 address, with or without brackets) and ``port``.

    Port 0 takes a free one: ask ``getsockname()``. ``::`` listens on IPv4 too.

    It listens already: two sockets may both be *bound* to one port under SO_REUSEADDR, and only listening tells which
    of two starters lost. Clients that come early wait in the backlog until the server runs.

    Raises PortTakenError (naming the holder where the system tells), UsageError for a host or port that cannot be.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"port {port} is out of range", hint="ports go from 1 to 65535")
    family, address = _resolve(host.strip("[]"), port)
    # The protocol must be given: asyncio sets TCP_NODELAY on accepted sockets only if their listener names TCP, and
    # without it small stream events wait for the client's delayed acknowledgement (40 ms).
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise _bind_error(error, host, port) from error
    sock.setblocking(False)
    return sock


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    if not host:
        raise UsageError(
            "the host is empty", hint="use 127.0.0.1 for this machine, 0.0.0.0 for all interfaces"
        )
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(
            f"host {host!r} is unknown: {error}", hint="name an address of this machine"
        ) from error
    # "localhost" may be both; addresses written http://127.0.0.1:… must find it.
    family, _, _, _, address = min(found, key=lambda item: item[0] != socket.AF_INET)
    return family, address


def _bind_error(error: OSError, host: str, port: int) -> LlmlaunchError:
    where = url(host, port).removeprefix("http://")
    if error.errno == errno.EADDRINUSE:
        from llmlaunch.hardware.ports import holder_of

        return PortTakenError(
            f"cannot listen on {where}: port {port} is taken by {holder_of(host, port)}",
            hint="end that process, or choose another port with --port",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"cannot listen on {where}: {host} is not an address of this machine",
            hint="use 127.0.0.1 for this machine alone, 0.0.0.0 for all interfaces",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return UsageError(
            f"cannot listen on {where}: permission denied",
            hint="ports below 1024 need privileges; choose a higher one",
        )
    return UsageError(f"cannot listen on {where}: {error.strerror or error}")


def configure_logging(level: str) -> None:
    """Plain lines on stderr at ``level`` (one of ``LOG_LEVELS``) for our own loggers; libraries only from warnings on.

    From here on nothing that this process prints can fail. Raises UsageError.
    """
    if level not in LOG_LEVELS:
        raise UsageError(f"unknown log level {level!r}", hint=f"choose one of {', '.join(LOG_LEVELS)}")
    ignore_write_errors()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("llmlaunch").setLevel(level.upper())


def note(number: int) -> None:
    """Handle a signal that means nothing to a server."""
    log.warning("ignoring %s", signals.name(number))


def run_app(
    app: Any,
    sock: socket.socket,
    *,
    on_started: Callable[[], None] | None = None,
    on_stopping: Callable[[], None] | None = None,
    drain: Callable[[], Awaitable[None]] | None = None,
    end: asyncio.Event | None = None,
    grace_s: float = 10.0,
    loop: str = "auto",
    door: Door | None = None,
) -> int:
    """Serve the ASGI ``app`` on ``sock`` until SIGTERM, SIGINT, SIGHUP or SIGQUIT; return the process's exit code (0 or 130).

    Both callbacks are called once, inside the running event loop (they may create tasks): ``on_started`` when
    requests are answered, ``on_stopping`` at the first signal, while requests in flight go on. These have ``grace_s``
    seconds; then their connections are cut and their tasks cancelled. With ``drain`` new requests still reach the app
    (which should refuse them) until it is done, within the same grace. Setting ``end`` ends it as a SIGTERM does, for a
    reason that its setter tells. ``loop`` is uvicorn's: "auto" takes uvloop
    when it is installed, "asyncio" is smaller. ``door`` says which requests reach the app; None: all.

    A signal that is ignored when this is called stays ignored; one that means nothing here is noted in the log.
    Must run in the main thread, where signals arrive. Raises StartError when the app's lifespan fails to start.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn, with our signals, and without its ten wake-ups a second."""

        code = 0

        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            self.stopping = asyncio.Event()
            self.heeded: tuple[int, ...] = ()
            self.deadline = 0.0
            self.draining: asyncio.Future[None] | None = None
            self.waiting: asyncio.Future[None] | None = None

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            running = asyncio.get_running_loop()
            self.heeded = signals.not_ignored(signals.ENDING)
            for number in self.heeded:
                running.add_signal_handler(number, self.stop, number)
            for number in signals.unhandled():
                running.add_signal_handler(number, note, number)
            yield

        def stop(self, number: int) -> None:
            log.info("%s: stopping", signals.name(number))
            self.code = 130 if number == signal.SIGINT else 0
            self.begin_end()

        def begin_end(self) -> None:
            running = asyncio.get_running_loop()
            for other in self.heeded:
                running.remove_signal_handler(other)
                signal.signal(other, signal.SIG_DFL)
            self.deadline = running.time() + grace_s
            if on_stopping is not None:
                on_stopping()
            if drain is None:
                self.finish()
            else:
                self.draining = asyncio.ensure_future(self.drain(drain()))

        async def drain(self, work: Awaitable[None]) -> None:
            """Go on accepting until ``work`` is done, so that the app itself can say that it is ending."""
            try:
                async with asyncio.timeout_at(self.deadline):
                    await work
            except TimeoutError:
                pass
            except Exception:
                log.exception("draining failed; shutting down without it")
            finally:
                self.finish()

        def finish(self) -> None:
            self.should_exit = True
            self.stopping.set()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if on_started is not None and not self.should_exit:
                on_started()
            if end is not None:
                self.waiting = asyncio.ensure_future(self.until(end))

        async def until(self, end: asyncio.Event) -> None:
            await end.wait()
            if not self.deadline:  # no signal was there before
                self.begin_end()

        async def main_loop(self) -> None:
            while not await self.on_tick(0):  # keeps the Date header right
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), 1.0)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            cut = asyncio.get_running_loop().call_later(self.left(), self.cut)
            await super().shutdown(sockets)
            cut.cancel()
            if self.waiting is not None:
                self.waiting.cancel()

        def left(self) -> float:
            """Seconds of the grace; all of it when no signal came."""
            if not self.deadline:
                return grace_s
            return max(0.0, self.deadline - asyncio.get_running_loop().time())

        def cut(self) -> None:
            connections = list(self.server_state.connections)
            log.warning("the grace period of %g s is over: closing %d connections", grace_s, len(connections))
            for connection in connections:
                transport: Any = connection.transport
                transport.abort()

    async def quiet(scope: Any, receive: Any, send: Any) -> None:
        try:
            if door is not None and scope["type"] == "http" and (refusal := _refusal(door, scope)):
                await _refuse(refusal, send)
                return
            await app(scope, receive, send)
        except asyncio.CancelledError:
            if not server.should_exit:  # at the end of the grace uvicorn cancels, and would print a traceback
                raise

    config = uvicorn.Config(
        quiet,
        interface="asgi3",
        loop=loop,
        ws="none",
        lifespan="auto",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(grace_s) + 1,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    server = Server(config)
    try:
        server.run(sockets=[sock])
    except SystemExit as error:  # how uvicorn reports a lifespan that failed; its reason is in the log
        raise StartError("the server could not start") from error
    return server.code


def _refusal(door: Door, scope: Any) -> Refusal | None:
    said = {
        name: value.decode("latin-1")
        for name, value in scope["headers"]
        if name in (b"host", b"origin", b"sec-fetch-site", b"content-type")
    }
    origin, site = said.get(b"origin", ""), said.get(b"sec-fetch-site", "")
    refusal = door.refusal(said.get(b"host", ""), origin, site)
    if refusal is None and scope["method"] == "POST":
        return not_json(said.get(b"content-type", ""), origin, site)
    return refusal


async def _refuse(refusal: Refusal, send: Callable[[Any], Awaitable[None]]) -> None:
    body = json.dumps(envelope(refusal.message, INVALID_REQUEST, code=refusal.code)).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": refusal.status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
