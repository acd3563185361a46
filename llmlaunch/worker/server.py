"""The life of one worker: port bound → serving /health → loading → registered → draining → stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import threading
from typing import Any
from urllib.parse import urlsplit

from llmlaunch import http_server
from llmlaunch.common import variables
from llmlaunch.common.browser_guard import door
from llmlaunch.controller.client import ControllerClient, keep_registered
from llmlaunch.controller.wire import RegisterWorker, WorkerStatus
from llmlaunch.errors import LlmlaunchError, StartError
from llmlaunch.worker.api.auth import RequireKey
from llmlaunch.worker.api.generation.inflight import hand_over
from llmlaunch.worker.api.routes import application
from llmlaunch.worker.api.service import Service
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import DeviceLostError
from llmlaunch.worker.loading import loader
from llmlaunch.worker.loading.types import Loaded, LoadedGenerator
from llmlaunch.worker.state import Status, WorkerState

THREAD_SWITCH_INTERVAL_S = 0.0001
"""Seconds between switches of Python threads. An engine step releases the GIL hundreds of times, and while another thread
is busy, each acquisition waits for one switch interval. Python's default of 5 ms would add seconds to a step."""

log = logging.getLogger(__name__)


def run(config: WorkerConfig, sock: socket.socket) -> int:
    """Serve until told to stop; return the exit code.

    Raises StartupError (exit code 2) when a retry cannot help, another LlmlaunchError when it may.
    """
    worker = _Worker(config)
    sys.setswitchinterval(THREAD_SWITCH_INTERVAL_S)
    code = http_server.run_app(
        RequireKey(application(worker.service), worker.key) if worker.key else application(worker.service),
        sock,
        on_started=worker.started,
        on_stopping=worker.stopping,
        drain=worker.drained,
        end=worker.end,
        grace_s=config.stop_grace_s,
        door=door(sock.getsockname()[0], names=[config.host, urlsplit(config.address).netloc]),
    )
    worker.close()
    if worker.failure is not None:
        raise worker.failure
    return code


class _Worker:
    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.state = WorkerState(needs_controller=bool(config.controller_address))
        self.service = Service(config, self.state)
        self.key = os.environ.get(variables.WORKER_KEY, "")
        """The key that callers must send; empty: none is required."""
        self.failure: LlmlaunchError | None = None
        self.end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._registering: asyncio.Task[None] | None = None

    def started(self) -> None:
        self._loop = asyncio.get_running_loop()
        log.info("listening on %s, loading %s", self.config.address, self.config.model)
        threading.Thread(target=self._load, name="loader", daemon=True).start()

    def stopping(self) -> None:
        if self.state.status is not Status.FAILED:
            self.state.status = Status.DRAINING
        if self._registering is not None:
            self._registering.cancel()

    async def drained(self) -> None:
        """Wait until no request is in flight and the controller knows that no more should come."""
        if self._registering is not None:
            await asyncio.wait({self._registering})
        await self.service.idle.wait()

    def close(self) -> None:
        """Called after the HTTP server has ended."""
        self.service.close()
        loaded = self.service.model
        if isinstance(loaded, LoadedGenerator):
            loaded.engine.stop()

    # -- in the loader thread ------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            loaded = loader.load(self.config, self.state.progress, self._deliver, self._lost)
        except LlmlaunchError as error:
            self._call(self._failed, error)
        except Exception as error:
            log.exception("loading failed")
            what = f"{self.config.model} could not be loaded: {type(error).__name__}: {error}"
            self._call(self._failed, StartError(what))
        else:
            self._call(self._serve, loaded)

    def _call(self, function: Any, *arguments: Any) -> None:
        loop = self._loop
        if loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended
            loop.call_soon_threadsafe(function, *arguments)

    def _deliver(self, bundle: Any) -> None:
        self._call(hand_over, bundle)

    def _lost(self, error: DeviceLostError) -> None:
        self._call(self._failed, error)

    # -- in the event loop ---------------------------------------------------------------------------------------

    def _serve(self, loaded: Loaded) -> None:
        if self.state.status is Status.DRAINING:
            if isinstance(loaded, LoadedGenerator):
                loaded.engine.stop(timeout_s=0)
            return
        self.service.serve(loaded)
        log.info("serving %s on %s", ", ".join(self.config.names), self.config.address)
        if self.config.controller_address:
            self._registering = asyncio.ensure_future(self._stay_registered(loaded))

    def _failed(self, error: LlmlaunchError) -> None:
        if self.state.status is Status.DRAINING:
            return
        self.failure = error
        self.state.status = Status.FAILED
        self.state.note = error.message
        self.end.set()

    async def _stay_registered(self, loaded: Loaded) -> None:
        client = ControllerClient(self.config.controller_address, token=os.environ.get(variables.TOKEN, ""))

        def registration() -> RegisterWorker:
            return RegisterWorker(
                worker_name=self.config.address,
                worker_status=WorkerStatus.model_validate(self.service.worker_status()),
                component=self.config.component,
                engine="transformers",
                kind=loaded.kind.value,
                max_concurrency=self.config.max_concurrency,
                request_timeout_s=self.config.request_timeout_s,
                max_model_len=loaded.context,
                keyed=bool(self.key),
            )

        try:
            await keep_registered(
                client, registration, lambda: self.service.queue_length, on_state=self._on_registered
            )
        finally:
            await client.aclose()

    def _on_registered(self, registered: bool, why: str) -> None:
        self.state.registration(registered, why)
        log.info("%s", why)
