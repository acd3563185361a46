"""The gateway as a process: socket, event loop, signals, graceful shutdown.

It does not use uvicorn with a protocol class. The data path would be our own either way, the other endpoints (models,
health, metrics) are smaller than the ASGI bridge they would need, and this file is all that uvicorn would still provide.
Without it there is no ASGI framework to import, half the memory is saved, and there is no second layer whose rules for
framing could differ.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llmlaunch.common import signals
from llmlaunch.common.addresses import is_loopback
from llmlaunch.gateway.app import Gateway, GatewayOptions
from llmlaunch.gateway.http1.client_connection import ClientConnection
from llmlaunch.gateway.http1.tls import Certificate
from llmlaunch.gateway.http1.tls_accept import TlsAcceptor
from llmlaunch.gateway.limits.keys import KeyRing
from llmlaunch.gateway.multiprocess import parent
from llmlaunch.gateway.multiprocess.loop_liveness import HEARTBEAT_S, SAMPLE_S
from llmlaunch.gateway.multiprocess.shared_counters import ProcessGroup, single_process
from llmlaunch.gateway.observe import metrics, tracing
from llmlaunch.gateway.routing.controller_sync import ControllerSync
from llmlaunch.gateway.routing.saved_table import SavedTable
from llmlaunch.http_server import note

log = logging.getLogger(__name__)

SWEEP_S = 1.0
GRACE_S = 10.0
"""The grace period: seconds that requests in flight have to finish after a signal."""
_LAST_WRITES_S = 0.5


@dataclass(frozen=True, slots=True)
class GatewayService:
    """What :func:`run` serves."""

    controller_url: str
    token: str = ""
    """The controller's token."""
    worker_keys: str = ""
    """The seed from which the workers' API keys are derived."""
    options: GatewayOptions = field(default_factory=GatewayOptions)
    keys: KeyRing | None = None
    """None: no API key is needed."""
    tls: Certificate | None = None
    grace_s: float = GRACE_S
    processes: int = 1
    """The number of processes that share the port."""
    saved_table: SavedTable | None = None
    """The file with the last route table."""


def run(service: GatewayService, sock: socket.socket, on_started: Callable[[], None] = lambda: None) -> int:
    """Serve on the listening ``sock`` until a signal stops it; return 130 for SIGINT, else 0.

    Must be called in the main thread. Signals that are ignored at that time stay ignored.

    At the first signal it stops accepting, and requests in flight finish within the grace period. A second signal from
    the keyboard ends the process at once. A second SIGTERM changes nothing, because a service manager and a supervisor may
    each send one.

    Raises UsageError when several processes cannot share the port.
    """
    if service.processes == 1:
        return _run(service, sock, single_process(), on_started)
    _loop_factory()  # imported before the fork, once for all processes

    def serve(sock: socket.socket, group: ProcessGroup, on_started: Callable[[], None]) -> int:
        return _run(service, sock, group, on_started)

    sockets = parent.listeners(sock, service.processes)
    notices = parent.ProcessNotices(metrics.exited, metrics.hung, metrics.withdraw)
    return parent.ParentProcess(sockets, serve, service.grace_s, on_started, notices).run()


def _run(
    service: GatewayService, sock: socket.socket, group: ProcessGroup, on_started: Callable[[], None]
) -> int:
    _raise_file_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(service, sock, group, on_started))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _raise_file_limit() -> None:
    """Raise the soft limit of open files. Each client takes up to two, and the usual limit of 1024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(
    service: GatewayService, sock: socket.socket, group: ProcessGroup, on_started: Callable[[], None]
) -> int:
    loop = asyncio.get_running_loop()
    spans = tracing.from_environment(
        os.environ
    )  # in this process: the SDK has a thread, which no fork takes along
    gateway = Gateway(service.options, service.keys, group, spans, service.worker_keys)
    if service.saved_table is not None and (last := service.saved_table.load(group.size)) is not None:
        log.info("serving with the saved routes until the controller answers")
        gateway.router.adopt_saved(last)
    saved = service.saved_table if group.index == 0 else None
    sync = ControllerSync(gateway.router, gateway.identity, service.controller_url, service.token, saved)
    if service.keys is None and not is_loopback(str(sock.getsockname()[0])):
        gateway.endpoints.warning = "anybody who can reach this machine can use it: no API key is required"
    signalled: asyncio.Future[int] = loop.create_future()
    _listen_for_signals(loop, signalled)
    tls = service.tls
    server: asyncio.Server | TlsAcceptor
    if tls is None:
        server = await loop.create_server(
            lambda: ClientConnection(gateway), sock=sock, backlog=gateway.files.backlog
        )
    else:
        server = TlsAcceptor(sock, lambda: ClientConnection(gateway), tls.context, gateway.files)
        server.start()
    background = [
        loop.create_task(sync.run(), name="controller sync"),
        loop.create_task(_sweep(gateway, tls), name="sweep"),
        loop.create_task(_report_drained(gateway, sync), name="report"),
    ]
    background.append(loop.create_task(_beat(gateway, group), name="beat"))
    for task in background:
        task.add_done_callback(_must_not_end)
    # The objects that exist now live as long as the process: the collector need not visit them again.
    gc.collect()
    gc.freeze()
    on_started()
    code = await signalled
    log.info("stopping: %d connections", len(gateway.connections))
    server.close()
    await _drain(gateway, service.grace_s)
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    gateway.close_log(_LAST_WRITES_S)
    if spans is not None:
        await spans.close()
    return code


def _listen_for_signals(loop: asyncio.AbstractEventLoop, signalled: asyncio.Future[int]) -> None:
    heeded = signals.not_ignored(signals.ENDING)

    def stop(number: int) -> None:
        for other in set(heeded) & set(signals.FROM_A_KEYBOARD):
            loop.remove_signal_handler(other)
            signal.signal(other, signal.SIG_DFL)  # a second one ends the process, whatever happens here
        told_to_stop(130 if number == signal.SIGINT else 0)

    def told_to_stop(code: int) -> None:
        if not signalled.done():
            signalled.set_result(code)

    for number in heeded:
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(parent.STOP, told_to_stop, 0)
    for number in signals.unhandled():
        loop.add_signal_handler(number, note, number)


async def _drain(gateway: Gateway, grace_s: float) -> None:
    gateway.stop()
    if not await _emptied(gateway, grace_s):
        log.warning(
            "the grace period of %g s is over: closing %d connections", grace_s, len(gateway.connections)
        )
    gateway.shut_down()
    await _emptied(gateway, _LAST_WRITES_S)
    for connection in list(gateway.connections):
        connection.transport.abort()
    await asyncio.sleep(0)


async def _emptied(gateway: Gateway, seconds: float) -> bool:
    end = gateway.now() + seconds
    while gateway.connections:
        if gateway.now() > end:
            return False
        await asyncio.sleep(0.02)
    return True


async def _sweep(gateway: Gateway, tls: Certificate | None) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            gateway.sweep()
            if tls is not None:
                tls.refresh()
        except Exception:
            log.exception("a sweep failed")


async def _beat(gateway: Gateway, group: ProcessGroup) -> None:
    """Show that the event loop runs; see ``multiprocess.loop_liveness``."""
    watch = parent.ParentWatch(group) if group.size > 1 else None
    observe_at = 0.0
    while True:
        group.own.beat += 1.0
        if watch is not None and gateway.now() >= observe_at:
            observe_at = gateway.now() + SAMPLE_S
            gateway.endpoints.broken = watch.observe(gateway.now())
        await asyncio.sleep(HEARTBEAT_S)


async def _report_drained(gateway: Gateway, sync: ControllerSync) -> None:
    while True:
        await gateway.router.drained.wait()
        gateway.router.drained.clear()
        sync.report_now()


def _must_not_end(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.critical(
            "the background task %s failed and is not started again",
            task.get_name(),
            exc_info=task.exception(),
        )
