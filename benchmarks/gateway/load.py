"""A load of keep-alive connections, each with one request at a time. Talks to this machine only."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import cast


class Client(asyncio.Protocol):
    """Sends the same request again as soon as the answer before has ended."""

    def __init__(self, request: bytes, stream: bool, times: list[float], until: float) -> None:
        self.request, self.stream, self.times, self.until = request, stream, times, until
        self.tail = b""
        self.expected = -1
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.ask()

    def ask(self) -> None:
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-4096:] if self.stream else self.tail + data
        if self.stream:
            if not self.tail.endswith(b"0\r\n\r\n"):
                return
        else:
            head, found, body = self.tail.partition(b"\r\n\r\n")
            if not found or len(body) < int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]):
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self.done.set_exception(RuntimeError(f"answered {self.tail[:300]!r}"))
                self.transport.close()
                return
        self.tail = b""
        now = time.perf_counter()
        self.times.append(now - self.began)
        if now < self.until:
            self.ask()
        else:
            self.transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"connection lost: {exc}; got {self.tail[:300]!r}"))


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


async def run(port: int, message: bytes, stream: bool, connections: int, seconds: float) -> list[float]:
    """Seconds each request took, in order of their ends."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    until = time.perf_counter() + seconds
    clients = [Client(message, stream, times, until) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*[client.done for client in clients])
    return times


def median_ms(times: list[float]) -> float:
    return statistics.median(times) * 1000
