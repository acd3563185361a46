"""The mock upstream and the load maker, compiled from C; and sockets that only hold a connection. This machine only."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Times:
    """What one run of the load maker found."""

    answers: int
    median_ms: float


def compiled(name: str, folder: Path) -> str:
    """The path of the program ``name``.c, made in ``folder``."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit("the mock upstream and the load maker need a C compiler (gcc)")
    binary = folder / name
    subprocess.run([compiler, "-O2", "-o", str(binary), str(HERE / f"{name}.c")], check=True)
    return str(binary)


def request(port: int, body: bytes, key: str) -> bytes:
    """What the openai client sends, more or less: its dozen header fields included."""
    fields = "".join(
        f"x-stainless-{name}: {value}\r\n"
        for name, value in (
            ("lang", "python"), ("package-version", "3.52.0"), ("os", "Linux"), ("arch", "x64"),
            ("runtime", "CPython"), ("runtime-version", "3.11.7"), ("async", "false"), ("retry-count", "0"),
        )
    )  # fmt: skip
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: application/json\r\n"
        f"content-type: application/json\r\nuser-agent: OpenAI/Python 3.52.0\r\n{fields}"
        f"authorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True, slots=True)
class Load:
    program: str
    folder: Path

    def run(self, port: int, message: bytes, connections: int, seconds: float) -> Times:
        file = self.folder / "message"
        file.write_bytes(message)
        command = [self.program, str(port), str(file), str(connections), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        if done.returncode:
            raise SystemExit(f"port {port}: {done.stderr.strip()}")
        answers, median_us, _ = map(int, done.stdout.split())
        return Times(answers, median_us / 1000)


@contextlib.contextmanager
def held(port: int, count: int, message: bytes = b"") -> Iterator[None]:
    """Keep ``count`` connections open, each with ``message`` sent and, if there is one, the first bytes of its answer come."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            for _ in range(count)
        ]
        if message:
            for sock in sockets:
                sock.sendall(message)
            for sock in sockets:
                sock.recv(64)
        yield
