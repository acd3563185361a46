"""A controller and workers small enough to misbehave on purpose, and a raw HTTP client to do so from the other side."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.ports import free_port
from tests.support.waiting import wait_until

HOST = "127.0.0.1"


class FakeController:
    """Serves whatever routes a test sets, holds long polls, and counts what it is asked."""

    def __init__(
        self, port: int | None = None, token: str = "", epoch: str = "one", rev: int = 0, **routes: Any
    ) -> None:
        self.token = token
        self.changed = threading.Condition()
        self.routes: dict[str, Any] = {
            "epoch": epoch, "rev": rev, "settled": True, "dispatch": "shortest_queue", "replicas": [], "expected": [],
            **routes,
        }  # fmt: skip
        self.reports: list[dict[str, int]] = []
        self.calls: list[str] = []
        self.closed = False
        self.server = _server(port, _controller_handler(self))
        self.port = self.server.server_address[1]
        self.url = f"http://{HOST}:{self.port}"

    def set(self, *replicas: dict[str, Any], **more: Any) -> None:
        with self.changed:
            self.routes = {
                **self.routes, "rev": self.routes["rev"] + 1, "replicas": list(replicas), **more,
            }  # fmt: skip
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()


def _controller_handler(owner: FakeController) -> type[BaseHTTPRequestHandler]:
    class Handler(_Quiet):
        def do_GET(self) -> None:
            owner.calls.append(self.path)
            if owner.token and self.headers["authorization"] != f"Bearer {owner.token}":
                self.answer(401, {"error": {"message": "wrong token"}})
                return
            since = int(re.findall(r"since=(-?\d+)", self.path)[0])
            epoch = re.findall(r"epoch=(\w*)", self.path)[0]
            wait = float(re.findall(r"wait=([\d.]+)", self.path)[0])
            with owner.changed:
                seen = owner.routes
                if (since, epoch) == (seen["rev"], seen["epoch"]):
                    owner.changed.wait_for(lambda: owner.routes is not seen or owner.closed, min(wait, 5.0))
                if owner.closed:
                    self.close_connection = True
                    return
                routes = owner.routes
            self.answer(200, routes)

        def do_POST(self) -> None:
            owner.calls.append(self.path)
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            owner.reports.append(body["in_flight"])
            self.answer(200, None)

        def answer(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None: ...  # peers that leave are the point


def _server(port: int | None, handler: type[BaseHTTPRequestHandler]) -> _Server:
    server = _Server((HOST, port or free_port()), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


@dataclass
class Seen:
    """A request as a worker got it."""

    head: bytes
    body: bytes

    @property
    def path(self) -> str:
        return self.head.split(b" ")[1].decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None


Behaviour = Callable[["Talk", Seen], None]


@dataclass
class Talk:
    """A worker's side of one connection."""

    worker: FakeWorker
    sock: socket.socket

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reply(self, value: object, status: int = 200, extra: str = "") -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
        self.send(head.encode() + body)

    def start_stream(self) -> None:
        self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def event(self, value: object) -> None:
        data = b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.event(b"[DONE]")
        self.send(b"0\r\n\r\n")

    def wait_for_peer_to_leave(self, seconds: float = 10.0) -> None:
        """Return when the other side closed; record it."""
        self.sock.settimeout(seconds)
        with contextlib.suppress(OSError):
            while self.sock.recv(4096):
                pass
        self.worker.left.append(time.monotonic())

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


def echo(talk: Talk, seen: Seen) -> None:
    """Answer as an OpenAI server does, streamed when asked so."""
    asked = seen.json
    if asked.get("stream"):
        talk.start_stream()
        for piece in ("Hel", "lo", ""):
            delta = {"content": piece} if piece else {}
            talk.event(
                {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": asked["model"],
                 "choices": [{"index": 0, "delta": delta, "finish_reason": None if piece else "stop"}]}
            )  # fmt: skip
        talk.end_stream()
        return
    message = {"role": "assistant", "content": "Hello"}
    talk.reply(
        {"id": "c", "object": "chat.completion", "created": 1, "model": asked["model"], "worker": talk.worker.url,
         "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
         "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
    )  # fmt: skip


@dataclass
class FakeWorker:
    behave: Behaviour = echo
    port: int = field(default_factory=free_port)
    seen: list[Seen] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    """When the other side left, for behaviours that wait for it."""
    connections: int = 0

    def __post_init__(self) -> None:
        self.url = f"http://{HOST}:{self.port}"
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((HOST, self.port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def replica(self, *names: str, **more: Any) -> dict[str, Any]:
        return {"worker_name": self.url, "model_names": list(names), **more}

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        talk, rest = Talk(self, sock), b""
        with contextlib.suppress(OSError), sock:
            while True:
                while b"\r\n\r\n" not in rest:
                    data = sock.recv(65536)
                    if not data:
                        return
                    rest += data
                head, _, rest = rest.partition(b"\r\n\r\n")
                length = int((re.findall(rb"(?i)content-length: (\d+)", head) or [0])[0])
                while len(rest) < length:
                    data = sock.recv(65536)
                    if not data:
                        return
                    rest += data
                seen = Seen(head, rest[:length])
                rest = rest[length:]
                self.seen.append(seen)
                self.behave(talk, seen)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class GatewayProcess:
    """``llmlaunch api`` as a user runs it."""

    def __init__(
        self,
        controller_url: str,
        *options: str,
        env: dict[str, str] | None = None,
        read_output: bool = True,
        prelude: str = "",
    ) -> None:
        """Without ``read_output`` what it prints stays in the pipe. ``prelude`` is Python that runs before it."""
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        run = ["-c", f"{prelude}\nfrom llmlaunch.cli import main\nmain()"] if prelude else ["-m", "llmlaunch"]
        command = [
            sys.executable, *run, "api", "--port", str(self.port), "--controller-address", controller_url,
            *options,
        ]  # fmt: skip
        self.auth: dict[str, str] = {}
        self.log_lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.output_lines: list[str] = []
        sources = [(self.log_lines, self.process.stderr)]
        if read_output:
            sources.append((self.output_lines, self.process.stdout))
        self._readers = [
            threading.Thread(target=lines.extend, args=(stream,), daemon=True) for lines, stream in sources
        ]
        for reader in self._readers:
            reader.start()

    @property
    def log(self) -> str:
        return "".join(self.log_lines)

    def until_up(self) -> GatewayProcess:
        wait_until(lambda: "listening on" in self.log or self.process.poll() is not None, 20)
        assert self.process.poll() is None, self.log
        return self

    def until_serving(self, *names: str) -> None:
        def served() -> bool:
            answer = ask(self.port, "GET", "/v1/models", headers=self.auth)
            return set(names) <= {model["id"] for model in answer.json["data"]}

        wait_until(served, 10, f"models {names}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            for reader in self._readers:
                reader.join(5)
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()
        return code


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found = self.json["error"]
        assert set(found) == {"message", "type", "param", "code"}, found
        return dict(found)


class Client:
    """Raw bytes to the gateway, and answers read strictly."""

    def __init__(self, port: int, timeout: float = 10.0) -> None:
        self.sock = socket.create_connection((HOST, port), timeout)
        self.rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def post(self, body: object, path: str = "/v1/chat/completions", extra: str = "") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send(
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n{extra}\r\n".encode()
            + data
        )

    def more(self) -> bool:
        data = self.sock.recv(65536)
        self.rest += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.rest:
            assert self.more(), f"closed before {mark!r}: {self.rest!r}"
        found, _, self.rest = self.rest.partition(mark)
        return found + mark

    def head(self) -> tuple[int, dict[str, str]]:
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        return int(lines[0].split(" ")[1]), headers

    def exactly(self, size: int) -> bytes:
        parts, have = [self.rest], len(self.rest)
        while have < size:
            data = self.sock.recv(1 << 20)
            assert data, "closed within a body"
            parts.append(data)
            have += len(data)
        whole = b"".join(parts)
        self.rest = whole[size:]
        return whole[:size]

    def chunk(self) -> bytes:
        size = int(self.until(b"\r\n").split(b";")[0], 16)
        data = self.exactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    def answer(self, method: str = "POST") -> Answer:
        status, headers = self.head()
        while status == 100:
            status, headers = self.head()
        if method == "HEAD" or status == 204:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while data := self.chunk():
                parts.append(data)
            return Answer(status, headers, b"".join(parts))
        if "content-length" in headers:
            return Answer(status, headers, self.exactly(int(headers["content-length"])))
        return Answer(status, headers, self.to_the_end())

    def to_the_end(self) -> bytes:
        while self.more():
            pass
        found, self.rest = self.rest, b""
        return found

    def closed(self) -> bool:
        """Whether the gateway closes, within the timeout, without another byte."""
        return self.sock.recv(1) == b""


def ask(
    port: int, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request on a connection of its own."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", "connection: close"]
    lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
    if data:
        lines.append(f"content-length: {len(data)}")
    with Client(port) as client:
        client.send("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        return client.answer(method)


def chat(port: int, model: str, **more: Any) -> Answer:
    return ask(port, "POST", "/v1/chat/completions", {"model": model, "messages": [], **more})


class Bench:
    """A gateway with its controller, and workers that end with the test."""

    def __init__(self, controller: FakeController, gateway: GatewayProcess) -> None:
        self.controller = controller
        self.gateway = gateway
        self.port = gateway.port
        self.workers: list[FakeWorker] = []

    def worker(self, behave: Behaviour = echo) -> FakeWorker:
        self.workers.append(FakeWorker(behave))
        return self.workers[-1]

    def serve(self, *replicas: dict[str, Any], **more: Any) -> None:
        """Make these the routes and wait until the gateway uses them."""
        self.controller.set(*replicas, **more)
        rev = self.controller.routes["rev"]
        wait_until(lambda: self.metric("routes_revision") == rev, 10, f"revision {rev}")

    def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 when there is none with these labels."""
        return metric(ask(self.port, "GET", "/metrics").body.decode(), name, **labels)

    def clear(self) -> None:
        for worker in self.workers:
            worker.close()
        self.workers.clear()
        self.serve(expected=[], dispatch="shortest_queue")


def metric(page: str, name: str, **labels: str) -> float:
    total = 0.0
    for line in page.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found is None or found[1] != f"llmlaunch_gateway_{name}":
            continue
        if all(f'{key}="{value}"' in (found[2] or "") for key, value in labels.items()):
            total += float(found[3])
    return total


@contextlib.contextmanager
def running(
    *options: str,
    env: dict[str, str] | None = None,
    token: str = "",
    read_output: bool = True,
    prelude: str = "",
) -> Iterator[Bench]:
    controller = FakeController(token=token)
    gateway = GatewayProcess(controller.url, *options, env=env, read_output=read_output, prelude=prelude)
    bench = Bench(controller, gateway)
    try:
        gateway.until_up()
        yield bench
    finally:
        for worker in bench.workers:
            worker.close()
        try:
            gateway.stop()
        finally:
            controller.close()
