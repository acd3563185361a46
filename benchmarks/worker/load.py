"""Streamed chats, several at once, read from bare sockets, so that the client takes little of the machine that it measures."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

NEW_TOKENS = 64
SAMPLING = {"temperature": 0.8, "top_p": 0.95, "top_k": 50}
TOPICS = [
    "a dragon",
    "the sea",
    "a lost robot",
    "two cats",
    "winter in Norway",
    "a baker",
    "an old train",
    "the moon",
]
_asked = itertools.count()


@dataclass(frozen=True)
class Target:
    """A server, and what a body must say for 64 tokens drawn by :data:`SAMPLING` whatever they are."""

    name: str
    port: int
    model: str
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stream:
    """Seconds from the sending to the first text, between texts, and the number of tokens."""

    first_s: float
    gaps_s: list[float]
    tokens: int


@dataclass(frozen=True)
class Cell:
    """Several rounds of as many streams at once."""

    rate: float
    """Tokens/s in all: the median round."""
    first_s: list[float]
    """Of all streams, in order."""

    def first(self, share: float) -> float:
        """The first token that this share of the streams had got, in seconds."""
        return self.first_s[min(len(self.first_s) - 1, int(share * len(self.first_s)))]


def _body(target: Target, words: int) -> bytes:
    """No two prompts are the same after their first dozen words: what a server remembers of one is no answer to another."""
    at = next(_asked)
    text = f"Write a long and detailed story about {TOPICS[at % 8]} and the number {at}, with many characters and places."
    filler = " ".join(f"{TOPICS[(at + i) % 8]} {i}" for i in range(words))
    return json.dumps(
        {
            "model": target.model,
            "messages": [{"role": "user", "content": text + filler}],
            "stream": True,
            "max_tokens": NEW_TOKENS,
            **target.extra,
        }
    ).encode()


async def ask(target: Target, words: int = 0) -> Stream:
    """One chat with a prompt longer by ``words``. Exits when it is not answered with all its tokens."""
    body = _body(target, words)
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    began = time.perf_counter()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
    )
    times, tokens, last = [], 0, b""
    async for line in reader:
        if not line.startswith(b"data: {"):
            last = line.strip() or last
            continue
        if b'"content":"' in line and b'"content":""' not in line:
            times.append(time.perf_counter() - began)
        if b'"usage":{' in line:
            tokens = json.loads(line[6:])["usage"]["completion_tokens"]
    writer.close()
    if tokens != NEW_TOKENS:
        raise SystemExit(f"{target.name} answered {tokens} tokens instead of {NEW_TOKENS}: {last[:300]!r}")
    return Stream(times[0], [b - a for a, b in itertools.pairwise(times)], tokens)


async def burst(target: Target, count: int) -> tuple[float, list[Stream]]:
    """Tokens/s in all, and the streams."""
    began = time.perf_counter()
    streams = await asyncio.gather(*(ask(target) for _ in range(count)))
    return sum(stream.tokens for stream in streams) / (time.perf_counter() - began), list(streams)


async def cell(target: Target, count: int, rounds: int) -> Cell:
    results = [await burst(target, count) for _ in range(rounds)]
    firsts = sorted(stream.first_s for _, streams in results for stream in streams)
    return Cell(statistics.median(rate for rate, _ in results), firsts)


async def stall(target: Target) -> tuple[float, float]:
    """Median and longest gap in seconds between two texts of a running stream, while a long prompt arrives."""
    running = asyncio.ensure_future(ask(target))
    await asyncio.sleep(0.7)
    await ask(target, words=600)
    gaps: Sequence[float] = (await running).gaps_s
    return statistics.median(gaps), max(gaps)
