"""A small stand-in for an inference server: real process, real sockets, misbehaves on request. Standard library only.

Run: ``python -I -S tests/support/fake_engine.py --port 9000 --names tiny`` (about 50 ms until it listens).

It answers /health, /v1/models, /v1/chat/completions, /v1/completions and /v1/embeddings as OpenAI's API does. Chat answers are
``--chunks`` words with ``--chunk-delay`` seconds between them, after ``--first-delay``. For tests it also has

=====================  ================================================================================
POST /crash            ends at once, {"code": N} as exit code (default 1)
POST /hang             accepts connections and never answers again
POST /sick             /health answers 500 from now on; POST /well undoes it
POST /spin             {"seconds": S}: /health answers nothing meanwhile, and keeps a CPU busy as long as somebody asks
POST /eat              takes memory until something stops it
POST /set              {"chunks": N, "chunk_delay": S, "first_delay": S, "status": 500}: how later answers behave
GET  /seen             {"probes", "requests", "active", "cancelled", "last": body, "headers": {…}, "pid", "env": {…}}
=====================  ================================================================================
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class State:
    """What the engine does now, and what it has seen. One per process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.started = time.monotonic()
        self.hung = False
        self.sick = False
        self.spins_until = 0.0
        self.probes = 0
        self.status = 0
        self.requests = self.active = self.cancelled = 0
        self.last: object = None
        self.headers: dict[str, str] = {}
        self.lock = threading.Lock()

    @property
    def loaded(self) -> bool:
        return bool(time.monotonic() - self.started >= self.options.ready_after)

    def enter(self, body: object, headers: dict[str, str]) -> None:
        with self.lock:
            self.requests += 1
            self.active += 1
            self.last, self.headers = body, headers

    def leave(self, cancelled: bool) -> None:
        with self.lock:
            self.active -= 1
            self.cancelled += cancelled


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *args: object) -> None:
        if not self.path.startswith("/health"):
            print(f"{self.command} {self.path}", flush=True)

    def do_GET(self) -> None:
        self._hang_if_told()
        if self._is_foreign():
            return
        match self.path.split("?")[0]:
            case "/health" | "/ready" | "/live":
                self._health()
            case "/v1/models":
                rows = [
                    {"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in self._names
                ]
                self._json(200, {"object": "list", "data": rows})
            case "/seen":
                self._json(200, self._seen())
            case _:
                self._json(404, {"error": {"message": "no such path", "type": "invalid_request_error"}})

    def do_POST(self) -> None:
        body = self._body()
        self._hang_if_told()
        if self._is_foreign():
            return
        match self.path.split("?")[0]:
            case "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings":
                self._serve(body)
            case "/crash":
                print("crashing as told", flush=True)
                os._exit(int(body.get("code", 1)))
            case "/hang":
                self.state.hung = True
                self._json(200, {})
            case "/sick" | "/well":
                self.state.sick = self.path == "/sick"
                self._json(200, {})
            case "/eat":
                eaten = []
                while True:
                    eaten.append(bytearray(b"x" * (8 << 20)))
            case "/spin":
                self.state.spins_until = time.monotonic() + body.get("seconds", 0)
                self._json(200, {})
            case "/set":
                for key in ("chunks", "chunk_delay", "first_delay"):
                    setattr(self.state.options, key, body.get(key, getattr(self.state.options, key)))
                self.state.status = body.get("status", self.state.status)
                self._json(200, {})
            case _:
                self._json(404, {"error": {"message": "no such path", "type": "invalid_request_error"}})

    @property
    def _names(self) -> list[str]:
        return [name for name in self.state.options.names.split(",") if name]

    def _is_foreign(self) -> bool:
        """Whether the caller lacks the key; like vLLM's, it is asked for under /v1 alone."""
        variable = self.state.options.key_variable
        key = os.environ.get(variable) if variable else None
        if not key or not self.path.startswith("/v1") or self.headers.get("Authorization") == f"Bearer {key}":
            return False
        self._json(401, {"error": "Unauthorized"})
        return True

    def _hang_if_told(self) -> None:
        while self.state.hung:
            time.sleep(3600)

    def _body(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length", 0))
        try:
            data = json.loads(self.rfile.read(length) or b"{}")
        except ValueError:
            data = {}
        return data if isinstance(data, dict) else {}

    def _json(self, status: int, value: object, **headers: str) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, item in headers.items():
            self.send_header(key.replace("_", "-"), item)
        self.end_headers()
        self.wfile.write(data)

    def _seen(self) -> dict[str, object]:
        state = self.state
        return {
            "probes": state.probes,
            "requests": state.requests,
            "active": state.active,
            "cancelled": state.cancelled,
            "last": state.last,
            "headers": state.headers,
            "pid": os.getpid(),
            "env": dict(os.environ),
        }

    def _health(self) -> None:
        time.sleep(self.state.options.health_delay)
        while time.monotonic() < self.state.spins_until:
            sum(range(1000))
        self.state.probes += 1
        if self.state.sick:
            return self._json(500, {"status": "sick"})
        if self.state.loaded:
            return self._json(200, {"status": "ok", "warning": self.state.options.warning})
        waited = time.monotonic() - self.state.started
        share = min(int(waited / self.state.options.ready_after * 100), 99)
        body = {"status": "loading"} | (
            {"progress": f"loading {share} %"} if self.state.options.progress else {}
        )
        return self._json(503, body)

    def _serve(self, body: dict[str, object]) -> None:
        state = self.state
        state.enter(body, {k.lower(): v for k, v in self.headers.items()})
        cancelled = False
        try:
            if state.status:
                error = {"message": "as told", "type": "server_error", "param": None, "code": None}
                self._json(state.status, {"error": error})
            elif self.path.startswith("/v1/embeddings"):
                self._embeddings(body)
            elif body.get("stream"):
                self._stream(body)
            else:
                self._wait(state.options.first_delay + state.options.chunk_delay * state.options.chunks)
                self._json(200, self._completion(body))
        except (BrokenPipeError, ConnectionError):
            cancelled = True
        finally:
            state.leave(cancelled)

    def _wait(self, seconds: float) -> None:
        """Sleep as a model works, and notice a client that leaves."""
        end = time.monotonic() + seconds
        while True:
            rest = end - time.monotonic()
            if rest <= 0:
                return
            time.sleep(min(rest, 0.02))
            self.connection.setblocking(False)
            try:
                if self.connection.recv(1, socket.MSG_PEEK) == b"":
                    raise ConnectionError("the client left")
            except BlockingIOError:
                pass
            finally:
                self.connection.setblocking(True)

    def _words(self) -> list[str]:
        return [f"word{i} " for i in range(self.state.options.chunks)]

    def _shape(self, body: dict[str, object], kind: str) -> dict[str, object]:
        return {"id": "fake-1", "object": kind, "created": 0, "model": body.get("model", "")}

    def _usage(self) -> dict[str, int]:
        n = self.state.options.chunks
        return {"prompt_tokens": 3, "completion_tokens": n, "total_tokens": n + 3}

    def _completion(self, body: dict[str, object]) -> dict[str, object]:
        text = "".join(self._words())
        if self.path.startswith("/v1/chat"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            return self._shape(body, "chat.completion") | {"choices": [choice], "usage": self._usage()}
        plain = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
        return self._shape(body, "text_completion") | {"choices": [plain], "usage": self._usage()}

    def _stream(self, body: dict[str, object]) -> None:
        chat = self.path.startswith("/v1/chat")
        shape = self._shape(body, "chat.completion.chunk" if chat else "text_completion")
        self._wait(self.state.options.first_delay)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for word in [*self._words(), ""]:
            end = None if word else "stop"
            delta = {"delta": {"role": "assistant", "content": word}} if chat else {"text": word}
            self._event(shape | {"choices": [{"index": 0, "finish_reason": end} | delta]})
            self._wait(self.state.options.chunk_delay if word else 0)
        options = body.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            self._event(shape | {"choices": [], "usage": self._usage()})
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, value: object) -> None:
        data = b"data: " + (value if isinstance(value, str) else json.dumps(value)).encode() + b"\n\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _embeddings(self, body: dict[str, object]) -> None:
        given = body.get("input", "")
        texts = given if isinstance(given, list) else [given]
        rows = [{"object": "embedding", "index": i, "embedding": [0.6, 0.8]} for i in range(len(texts))]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        self._json(200, {"object": "list", "data": rows, "model": body.get("model", ""), "usage": usage})


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for the host's name, which can take seconds.
        self.address_family = socket.AF_INET6 if ":" in self.server_address[0] else socket.AF_INET
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address[:2])
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def claim_vram(claims: list[str]) -> None:
    """Tell the mock NVML what this process "uses": one file named by the pid, lines ``index MiB``."""
    words = Path(os.environ["MOCK_NVML"]).read_text().split()
    folder = Path(next(w for w in words if w.startswith("procdir=")).removeprefix("procdir=").strip('"'))
    claim = folder / f".{os.getpid()}"
    claim.write_text("".join(item.replace(":", " ") + "\n" for item in claims))
    claim.rename(folder / str(os.getpid()))


def spawn_grandchild(own_session: bool) -> None:
    """A grandchild that ignores SIGTERM when it is in a session of its own: the hardest kind to take down."""
    if os.fork():
        return
    if own_session:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    time.sleep(3600)
    os._exit(0)


HIDDEN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"


def spawn_hidden(pid_file: str) -> None:
    """A grandchild that nothing but its parents knows: a session of its own, no environment, another title."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    Path(f"{pid_file}.new").write_text(str(os.getpid()))
    Path(f"{pid_file}.new").rename(pid_file)
    os.execve(sys.executable, ["Engine::Core", "-I", "-S", "-c", HIDDEN], {})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--names", default="fake", help="comma separated")
    parser.add_argument(
        "--key-variable", default="", help="environment variable with the key that callers show"
    )
    parser.add_argument("--token", help="means nothing")
    parser.add_argument("--ready-after", type=float, default=0.0, help="seconds of 503 on /health")
    parser.add_argument("--health-delay", type=float, default=0.0, help="seconds until /health answers")
    parser.add_argument("--progress", action="store_true", help="/health shows progress while loading")
    parser.add_argument("--warning", default="", help="what /health says of how it runs")
    parser.add_argument(
        "--log-progress", action="store_true", help="prints 'shard N' ten times a second while loading"
    )
    parser.add_argument(
        "--read-files", action="store_true", help="reads 2 MiB ten times a second while loading"
    )
    parser.add_argument("--exit-after", type=float, help="seconds until it ends by itself")
    parser.add_argument("--exit-code", type=int, default=1)
    parser.add_argument(
        "--fail-without", default="", help="a variable without which it fails to start", metavar="NAME"
    )
    parser.add_argument(
        "--fail-start", action="store_true", help="prints a reason and exits with --exit-code"
    )
    parser.add_argument("--print", default="", metavar="FILE", help="what it prints before anything else")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--bind-late", action="store_true", help="listens only after --ready-after")
    parser.add_argument("--spawn-grandchild", action="store_true")
    parser.add_argument("--own-session", action="store_true", help="the grandchild leaves session and group")
    parser.add_argument(
        "--spawn-hidden", metavar="FILE", help="a grandchild without environment; FILE gets its pid"
    )
    parser.add_argument("--wipe", action="store_true", help="has no environment, as after setproctitle")
    parser.add_argument(
        "--vram", action="append", default=[], metavar="INDEX:MIB", help="claim it from the mock NVML"
    )
    parser.add_argument("--chunks", type=int, default=5)
    parser.add_argument("--chunk-delay", type=float, default=0.0)
    parser.add_argument("--first-delay", type=float, default=0.0)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.wipe and "PATH" in os.environ:
        os.execve(sys.executable, [sys.executable, "-I", "-S", *sys.argv], {})
    print(f"fake engine, pid {os.getpid()}, argv {sys.argv[1:]}", flush=True)
    if options.print:
        print(Path(options.print).read_text(), flush=True)
    if options.fail_start or (options.fail_without and not os.environ.get(options.fail_without)):
        print("RuntimeError: this engine was told to fail", flush=True)
        sys.exit(options.exit_code)
    # os._exit: a hung handler thread must not keep the process from leaving.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.ignore_term else lambda *_: os._exit(0))
    if options.spawn_grandchild:
        spawn_grandchild(options.own_session)
    if options.spawn_hidden:
        spawn_hidden(options.spawn_hidden)
    if options.vram:
        claim_vram(options.vram)
    if options.exit_after is not None:
        threading.Timer(options.exit_after, lambda: os._exit(options.exit_code)).start()
    if options.bind_late:
        time.sleep(options.ready_after)
    Handler.state = State(options)
    if options.log_progress:
        threading.Thread(target=print_progress, args=(Handler.state,), daemon=True).start()
    if options.read_files:
        threading.Thread(target=read_files, args=(Handler.state,), daemon=True).start()
    Server((options.host, options.port), Handler).serve_forever()


def print_progress(state: State) -> None:
    count = 0
    while not state.loaded:
        print(f"shard {(count := count + 1)}", flush=True)
        time.sleep(0.1)


def read_files(state: State) -> None:
    with open("/dev/zero", "rb", buffering=0) as file:  # noqa: PTH123
        while not state.loaded:
            file.read(2 << 20)
            time.sleep(0.1)


if __name__ == "__main__":
    main()
