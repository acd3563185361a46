"""A worker that speaks FastChat's protocol byte for byte, as fschat 0.2.36's model_worker was seen to, with its faults.

Words are its tokens. An answer is ``words`` repeated to ``max_new_tokens``, told every second token with its whole text
so far and the number of its last token counted from 0, then once more with the reason of its end.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.ports import free_port

HOST = "127.0.0.1"
NOISE = "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE OR REFRESH THIS PAGE.**"
TEMPLATE = {
    "name": "test", "system_template": "{system_message}", "system_message": "Be good.", "roles": ["USER", "BOT"],
    "messages": [], "offset": 0, "sep_style": 2, "sep": " ", "sep2": "</s>", "stop_str": None, "stop_token_ids": None,
}  # fmt: skip


@dataclass
class FakeFastChat:
    names: list[str] = field(default_factory=lambda: ["fc"])
    words: list[str] = field(default_factory=lambda: ["one", "two", "three"])
    ends_after: int | None = None
    """Tokens after which it ends by itself, the last being its end token."""
    context: int = 64
    slots: int = 2
    template: dict[str, Any] = field(default_factory=lambda: dict(TEMPLATE))
    pieces: list[dict[str, Any]] | None = None
    """Told instead of an answer of its own."""
    cut_after: int | None = None
    """Pieces after which it breaks off, as after an exception that FastChat does not expect."""
    error: tuple[int, str] | None = None
    error_after: int = 0
    """Pieces before the error."""
    error_for: str = ""
    """A part of the prompts that fail."""
    status: int = 200
    """Of every answer but /worker_get_status."""
    pause_s: float = 0.0
    """Between two pieces."""
    embeds: bool = True
    silent: bool = False
    """Accepts and does not answer, as while it computes embeddings."""
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.url = f"http://{HOST}:{self.port}"
        self.seen: list[tuple[str, Any]] = []
        self.active = 0
        self.left = 0
        """Answers whose reader went away."""
        self._server: ThreadingHTTPServer | None = None
        self._going = threading.Event()

    def asked(self, path: str) -> list[Any]:
        return [body for where, body in self.seen if where == path]

    def announce(self, controller: str, *names: str, multimodal: bool = True) -> tuple[int, Any]:
        """Register as its BaseModelWorker does; multi_model_worker leaves ``multimodal`` out."""
        body = {
            "worker_name": self.url, "check_heart_beat": True,
            "worker_status": {"model_names": list(names) or self.names, "speed": 1, "queue_length": self.active},
        }  # fmt: skip
        return post(f"{controller}/register_worker", body | ({"multimodal": False} if multimodal else {}))

    def beat(self, controller: str) -> Any:
        body = {"worker_name": self.url, "queue_length": self.active}
        return post(f"{controller}/receive_heart_beat", body)[1]

    def listen(self) -> FakeFastChat:
        owner = self

        class Handler(_Handler):
            worker = owner

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None: ...

        self._going.clear()
        self._server = Server((HOST, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def close(self) -> None:
        self._going.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait(self, seconds: float) -> None:
        self._going.wait(seconds)

    def answer(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Pieces as ``fastchat/serve/inference.py`` yields them. TypeError for a null where a number belongs."""
        most = int(asked.get("max_new_tokens", 256))
        float(asked.get("temperature", 1.0))
        stops = asked.get("stop") or []
        prompt = len(asked["prompt"].split())
        made: list[str] = []
        text, finish, i = "", "length", 0
        logprobs = None
        for i in range(most):
            made.append(self.words[i % len(self.words)])
            ended = self.ends_after is not None and i + 1 >= self.ends_after
            shown = made[:-1] if ended else made
            if i % 2 and i < most - 1 and not ended:
                continue
            text = " ".join(shown)
            if asked.get("logprobs") is not None:
                logprobs = {
                    "text_offset": [0] * len(made), "tokens": list(made), "token_logprobs": [-1.0] * len(made),
                    "top_logprobs": [{}] * len(made),
                }  # fmt: skip
            cut = [text.find(stop) for stop in stops if stop in text]
            if cut:
                text, ended = text[: min(cut)], True
            yield self._piece(text, prompt, i, None, logprobs)
            if ended:
                finish = "stop"
                break
        yield self._piece(text, prompt, i, finish, logprobs)

    @staticmethod
    def _piece(text: str, prompt: int, last: int, finish: str | None, logprobs: Any) -> dict[str, Any]:
        usage = {"prompt_tokens": prompt, "completion_tokens": last, "total_tokens": prompt + last}
        return {
            "text": text, "error_code": 0, "usage": usage, "finish_reason": finish, "logprobs": logprobs,
        }  # fmt: skip

    def failure(self) -> dict[str, Any]:
        assert self.error is not None
        code, reason = self.error
        return {"text": f"{NOISE}\n\n({reason})", "error_code": code}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    worker: FakeFastChat

    def log_message(self, format: str, *args: object) -> None: ...

    def do_POST(self) -> None:
        worker = self.worker
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        body: Any = json.loads(raw) if raw else None
        worker.seen.append((self.path, body))
        if worker.silent:
            worker.wait(30)
            self.close_connection = True
        elif self.path == "/worker_get_status":
            self._json({"model_names": worker.names, "speed": 1, "queue_length": worker.active})
        elif worker.status != 200:
            self._json({"detail": "as told"}, worker.status)
        elif self.path == "/worker_get_conv_template":
            self._json({"conv": worker.template})
        elif self.path == "/model_details":
            self._json({"context_length": worker.context})
        elif self.path == "/count_token":
            self._json({"count": len(body["prompt"].split()), "error_code": 0})
        elif self.path == "/worker_get_embeddings" and worker.embeds:
            self._embed(body)
        elif self.path == "/worker_generate_stream":
            self._stream(body)
        else:
            self._json({"detail": "Not Found"}, 404)

    def _json(self, value: object, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self._head(status, f"content-length: {len(data)}\r\ncontent-type: application/json\r\n")
        self.wfile.write(data)

    def _head(self, status: int, fields: str) -> None:
        close = "connection: close\r\n" if self.headers.get("connection", "").lower() == "close" else ""
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        head = f"HTTP/1.1 {status} {'OK' if status == 200 else 'X'}\r\ndate: {date}\r\nserver: uvicorn\r\n"
        self.wfile.write(f"{head}{fields}{close}\r\n".encode())
        self.close_connection = bool(close)

    def _embed(self, body: dict[str, Any]) -> None:
        if self.worker.error:
            self._json(self.worker.failure())
            return
        longest = max(len(text.split()) for text in body["input"])
        # Padding counts: what FastChat's worker does to models that attend to what follows.
        rows = [[float(len(text.split())), float(longest)] for text in body["input"]]
        self._json({"embedding": rows, "token_num": sum(len(text.split()) for text in body["input"])})

    def _stream(self, body: dict[str, Any]) -> None:
        worker = self.worker
        worker.active += 1
        self._head(200, "transfer-encoding: chunked\r\n")
        pieces = worker.pieces if worker.pieces is not None else worker.answer(body)
        try:
            for count, piece in enumerate(itertools.chain(pieces, [None])):
                if worker.cut_after is not None and count >= worker.cut_after:
                    raise TypeError("as told")
                failed = (
                    worker.error is not None
                    and count >= worker.error_after
                    and worker.error_for in body["prompt"]
                )
                shown = worker.failure() if failed else piece
                if shown is None:
                    break
                self._chunk(json.dumps(shown).encode() + b"\0")
                if failed:
                    break
                worker.wait(worker.pause_s)
                self._notice_reader()
            self.wfile.write(b"0\r\n\r\n")
            worker.active -= 1
        except OSError:
            worker.left += 1
            worker.active -= 1
        except TypeError:  # FastChat loses the slot, and uvicorn the connection
            self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _notice_reader(self) -> None:
        self.connection.setblocking(False)
        try:
            if self.connection.recv(1, socket.MSG_PEEK) == b"":
                raise ConnectionError("the reader left")
        except BlockingIOError:
            pass
        finally:
            self.connection.setblocking(True)


def post(url: str, body: object) -> tuple[int, Any]:
    """As ``requests.post(url, json=body)`` does it: status and JSON."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@contextlib.contextmanager
def fake_fastchat(*names: str, listens: bool = True, **manner: Any) -> Iterator[FakeFastChat]:
    worker = FakeFastChat(list(names) or ["fc"], **manner)
    try:
        yield worker.listen() if listens else worker
    finally:
        worker.close()
