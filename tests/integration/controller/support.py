"""A controller to talk to, in a thread or as the real process, and workers as bad as one can wish."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from llmlaunch import http_server
from llmlaunch.common import variables
from llmlaunch.controller.app import Controller
from tests.support.ports import free_port
from tests.support.waiting import wait_until

TOKEN = "a-token-of-the-tests"


class Api:
    """The controller's endpoints by name; ``status`` and ``json`` of each answer."""

    def __init__(self, url: str, token: str = "") -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url
        self.http = httpx.Client(base_url=url, headers=headers, timeout=20, trust_env=False)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.http.post(path, json=body, headers=headers)

    def ok(self, path: str, body: Any = None) -> Any:
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json()

    def register(self, name: str, *models: str, **fields: Any) -> httpx.Response:
        status = {"model_names": list(models), "speed": 1, "queue_length": 0} if models else None
        return self.post("/register_worker", {"worker_name": name, "worker_status": status, **fields})

    def routes(self, **params: Any) -> dict[str, Any]:
        response = self.http.get("/routes", params=params)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def models(self) -> list[str]:
        names: list[str] = self.ok("/list_models")["models"]
        return names


@contextlib.contextmanager
def in_thread(controller: Controller) -> Iterator[str]:
    """Serve ``controller`` here, on a free port; gives its URL."""
    port = free_port()
    sock = http_server.bind("127.0.0.1", port)
    server = uvicorn.Server(
        uvicorn.Config(controller.app(), log_config=None, access_log=False, ws="none", lifespan="on")
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
    thread.start()
    try:
        wait_until(lambda: server.started, what="the controller starts")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        # From the loop's own thread, as run_app does it: everybody who polls is let go.
        server.servers[0].get_loop().call_soon_threadsafe(controller.stop)
        thread.join(20)
        assert not thread.is_alive()


class Process:
    """``llmlaunch controller`` as its user starts it."""

    def __init__(self, folder: Path, port: int, *options: str, token: str = "") -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"controller-{port}-{len(list(folder.iterdir()))}.log"
        environment = {k: v for k, v in os.environ.items() if k != variables.TOKEN}
        if token:
            environment[variables.TOKEN] = token
        with self.log.open("wb") as out:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "llmlaunch", "controller", "--port", str(port), *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def wait_ready(self) -> None:
        def answers() -> bool:
            assert self.popen.poll() is None, self.text()
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(f"{self.url}/health", trust_env=False).status_code == 200
            return False

        wait_until(answers, 30, what="the controller answers")

    def text(self) -> str:
        return self.log.read_text()

    def end(self, number: signal.Signals) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(20)


@contextlib.contextmanager
def process(folder: Path, port: int, *options: str, token: str = "") -> Iterator[Process]:
    controller = Process(folder, port, *options, token=token)
    try:
        yield controller
    finally:
        if controller.popen.poll() is None:
            controller.popen.kill()
        controller.popen.wait()


class FakeWorker:
    """Answers /worker_get_status the way ``manner`` says: ok, late, stuck, redirect, error, text, huge, chunked, not_http."""

    def __init__(self, *models: str, manner: str = "ok", target: str = "") -> None:
        self.models, self.manner, self.target = list(models), manner, target
        self.asked = 0
        self.release = threading.Event()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                owner.asked += 1
                owner.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:  # the controller hung up on a stuck or huge answer
                pass

        self.server = Server(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = json.dumps({"model_names": self.models, "speed": 1, "queue_length": 0}).encode()
        match self.manner:
            case "stuck":
                self.release.wait(30)
                return
            case "late":
                self.release.wait(30)
                handler.send_response(200)
            case "not_http":
                handler.wfile.write(b"220 mail.example ESMTP\r\n\r\n")
                handler.close_connection = True
                return
            case "redirect":
                handler.send_response(307)
                handler.send_header("Location", self.target)
                body = b""
            case "error":
                handler.send_response(500)
            case "text":
                handler.send_response(200)
                body = b"<html>a printer</html>"
            case "huge":
                handler.send_response(200)
                handler.send_header("Content-Length", str(1 << 40))
                handler.end_headers()
                return
            case "chunked":
                handler.send_response(200)
                handler.send_header("Transfer-Encoding", "chunked")
                handler.end_headers()
                for piece in (body[:7], body[7:]):
                    handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                handler.wfile.write(b"0\r\n\r\n")
                return
            case _:
                handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


@contextlib.contextmanager
def fake_worker(*models: str, manner: str = "ok", target: str = "") -> Iterator[FakeWorker]:
    worker = FakeWorker(*models, manner=manner, target=target)
    try:
        yield worker
    finally:
        worker.close()
