"""The supervisor's process: one deployment, one lock, one socket.

It starts empty and gets its plan through the socket (``supervision/api.py``). It ends when it is told to shut down, at
SIGTERM, SIGINT or SIGQUIT (gracefully; a second one kills), or when its lifeline closes, because the command that started it
in the foreground has died. A signal that was ignored at the start stays ignored, and one without a meaning is only logged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import struct
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import fields

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmlaunch import __version__, http_server, paths
from llmlaunch.common import files, signals
from llmlaunch.common.deployment_name import RULE, is_deployment_name
from llmlaunch.common.prctl import adopt_orphans
from llmlaunch.common.process_identity import ProcessId
from llmlaunch.control.types import ALREADY_RUNNING_EXIT, SupervisorStatus
from llmlaunch.errors import LlmlaunchError, UsageError
from llmlaunch.supervision import control_socket
from llmlaunch.supervision.api import build
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.effects import ProcessEffects
from llmlaunch.supervision.file_threads import LogThread
from llmlaunch.supervision.journal import Journal
from llmlaunch.supervision.logs import supervisor_log
from llmlaunch.supervision.loop import Supervisor
from llmlaunch.supervision.processes import crash_recovery
from llmlaunch.supervision.watchdog import Watchdog

POLICY_VARIABLE = "LLMLAUNCH_SUPERVISION"
"""Overrides fields of ``restart.Policy``, as a JSON object: {"stable_s": 5}. Meant for tests."""
log = logging.getLogger(__name__)


class _OwnerOnly(HttpToolsProtocol):
    """Closes connections of every user but the owner and root, should the folder's mode not keep them out."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (os.getuid(), 0):
            log.warning("rejected connection from uid %d", uid)
            transport.abort()


class _Server(uvicorn.Server):
    """Does not handle signals, and sleeps instead of polling ten times a second whether it should end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def main_loop(self) -> None:
        await self.ended.wait()

    async def listen_also(self, sock: socket.socket) -> None:
        def connection() -> asyncio.Protocol:
            return _OwnerOnly(config=self.config, server_state=self.server_state, app_state={})

        listener = await asyncio.get_running_loop().create_server(connection, sock=sock)
        for earlier in self.servers:
            earlier.close()  # no path leads there any more; open connections stay
        self.servers.append(listener)


class Daemon:
    """Connects the loop, its effects, its journal and the socket."""

    def __init__(self, where: paths.DeploymentPaths, policy: Policy, left: Sequence[ProcessId] = ()) -> None:
        self.where = where
        self._policy = policy
        self.status = SupervisorStatus(os.getpid(), time.time(), __version__)
        run, secret = secrets.token_hex(16), secrets.token_urlsafe(32)
        self.effects = ProcessEffects(where, policy, run, secret, left)
        self.journal = Journal(where, self.effects.last_lines)
        self.supervisor = Supervisor(where.name, self.effects, policy)
        self.supervisor.on_change = self.journal.record
        self._watchdog = Watchdog(where)
        self._asked_to_stop = False
        self._socket: control_socket.FileIdentity | None = None

    async def run(self, sock: socket.socket, lifeline_fd: int | None) -> None:
        """Run until everything is down."""
        config = uvicorn.Config(
            build(self), http=_OwnerOnly, ws="none", lifespan="off", log_config=None, access_log=False,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = _Server(config)
        self._socket = control_socket.file_identity(self.where.socket)
        self._listen_to_signals(lifeline_fd)
        asyncio.get_running_loop().call_later(self._policy.unused_s, self._end_if_unused)
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        background = [
            asyncio.create_task(work)
            for work in (
                self.effects.registrar.run(), self.effects.running.note_descendants(), self._stay_reachable(server),
            )
        ]  # fmt: skip
        self._watchdog.start()
        try:
            await self.supervisor.run()
        finally:
            self._watchdog.close()
            for task in background:
                task.cancel()
            if control_socket.file_identity(self.where.socket) == self._socket:
                files.remove(self.where.socket)
            self.journal.close()
            await self.effects.close()
            server.ended.set()
            await serving

    def stop(self, force: bool = False) -> None:
        """Shut down; a second request for it, or ``force``, kills."""
        self._asked_to_stop = True
        self.supervisor.shutdown(force)

    async def _stay_reachable(self, server: _Server) -> None:
        """Bind the socket again when its file was removed or replaced.

        A logout removes the user's runtime folder, and cleaners of /tmp delete old files; the deployment goes on.
        """
        while True:
            await asyncio.sleep(self._policy.look_for_socket_s)
            if control_socket.file_identity(self.where.socket) == self._socket:
                continue
            try:
                paths.private_dir(self.where.run)
                sock = control_socket.bind_socket(self.where)
            except (OSError, LlmlaunchError):
                continue  # the folder above is gone, too, or somebody else's; it comes back at the next login
            self._socket = control_socket.file_identity(self.where.socket)
            log.warning("the control socket was removed or replaced; bound it again")
            await server.listen_also(sock)

    def _end_if_unused(self) -> None:
        if not self.supervisor.plan.processes and not self.supervisor.slots:
            log.warning("received no plan within %g s", self._policy.unused_s)
            self.stop()

    def _listen_to_signals(self, lifeline_fd: int | None) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self.effects.running.reap)
        for number in signals.not_ignored((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)):
            loop.add_signal_handler(number, self._on_signal, number)
        # Handlers, not SIG_IGN, which every engine would inherit.
        for number in (*signals.not_ignored((signal.SIGHUP,)), *signals.unhandled()):
            loop.add_signal_handler(number, http_server.note, number)
        if lifeline_fd is not None:
            loop.add_reader(lifeline_fd, self._on_lifeline, lifeline_fd)

    def _on_signal(self, number: int) -> None:
        log.info("%s", signals.name(number))
        self.stop(force=self._asked_to_stop)

    def _on_lifeline(self, descriptor: int) -> None:
        if os.read(descriptor, 512):
            return
        asyncio.get_running_loop().remove_reader(descriptor)
        if not self._asked_to_stop:
            # Gracefully, as for `down`: requests are in flight.
            log.warning("the command that started this supervisor in the foreground has exited")
            self.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the supervisor of one deployment and return its exit code. An error is one line on stderr."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    try:
        options = _parse(argv)
        _serve(paths.DeploymentPaths(options.name), _policy(), options.lifeline_fd)
    except control_socket.AlreadyRunningError as error:
        return _fail(error, ALREADY_RUNNING_EXIT)
    except LlmlaunchError as error:
        return _fail(error, error.exit_code)
    except OSError as error:
        return _fail(LlmlaunchError(f"cannot start the supervisor: {error}"), 1)
    return 0


def _serve(where: paths.DeploymentPaths, policy: Policy, lifeline_fd: int | None) -> None:
    for folder in (where.run, where.state, where.logs):
        paths.private_dir(folder)
    lock = control_socket.take_lock(where)
    try:
        supervisor_log.keep(where)
        # Orphans of a shim that somebody killed come here, not to pid 1, and are ended.
        adopt_orphans()
        left = crash_recovery.clean_after_crash(where).left
        sock = control_socket.bind_socket(where)
        log.info("supervising %s, pid %d", where.name, os.getpid())

        async def run() -> None:
            await Daemon(where, policy, left).run(sock, lifeline_fd)

        logging_beside = LogThread.install()
        try:
            asyncio.run(run())
        finally:
            logging_beside.uninstall()
        log.info("%s is down", where.name)
    finally:
        lock.release()


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m llmlaunch.supervision", description=__doc__)
    parser.add_argument("--name", required=True, help="the deployment")
    parser.add_argument(
        "--lifeline-fd", type=int, help="take everything down at end of file on this descriptor"
    )
    options = parser.parse_args(argv)
    if not is_deployment_name(options.name):
        raise UsageError(f"{options.name!r} is not a valid deployment name", hint=f"use {RULE}")
    return options


def _policy() -> Policy:
    text = os.environ.get(POLICY_VARIABLE, "")
    if not text:
        return Policy()
    known = {f.name for f in fields(Policy)}
    try:
        given = json.loads(text)
        if not isinstance(given, dict) or given.keys() - known:
            raise ValueError(f"expected an object with keys of {sorted(known)}")
        values = {key: type(getattr(Policy(), key))(value) for key, value in given.items()}
    except (ValueError, TypeError) as error:
        raise UsageError(f"{POLICY_VARIABLE}: {error}") from None
    return Policy(**values)


def _fail(error: LlmlaunchError, code: int) -> int:
    sys.stderr.write(f"error: {error.message}\n")
    return code
