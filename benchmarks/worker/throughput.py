"""Tokens per second and first tokens over HTTP, at 1, 8 and 32 requests at once.

    python benchmarks/worker/throughput.py                      # our worker, SmolLM2
    python benchmarks/worker/throughput.py --url http://127.0.0.1:8000 --model NAME     # any other server

64 new tokens each, temperature 0.8, top_p 0.95, top_k 50. The client is a bare socket reader, so that it takes little
of the machine that it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[2]))

TOPICS = (
    "a dragon",
    "the sea",
    "a lost robot",
    "two cats",
    "winter in Norway",
    "a baker",
    "an old train",
    "the moon",
)
NEW_TOKENS = 64


@dataclass
class Stream:
    first_s: float
    gaps_s: list[float]
    tokens: int


async def ask(url: str, model: str, at: int, prompt_words: int) -> Stream:
    """One streamed chat; times are counted from its sending."""
    text = f"Write a long and detailed story about {TOPICS[at % 8]}, with many characters and places."
    if prompt_words:
        text = " ".join(f"{TOPICS[(at + i) % 8]} {i}" for i in range(prompt_words)) + text
    body = json.dumps(
        {
            "model": model, "messages": [{"role": "user", "content": text}], "stream": True,
            "max_tokens": NEW_TOKENS, "temperature": 0.8, "top_p": 0.95, "top_k": 50, "ignore_eos": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()  # fmt: skip
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    began = time.perf_counter()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
    )
    first, last, gaps, tokens = 0.0, 0.0, [], 0
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        now = time.perf_counter()
        if b'"content":"' in line and b'"content":""' not in line:
            if not first:
                first = now - began
            else:
                gaps.append(now - last)
            last = now
            tokens += 1
        if b'"usage":{' in line:
            tokens = json.loads(line[6:])["usage"]["completion_tokens"]
    writer.close()
    return Stream(first, gaps, tokens)


async def round_of(url: str, model: str, count: int, prompt_words: int = 0) -> tuple[float, list[Stream]]:
    began = time.perf_counter()
    streams = await asyncio.gather(*(ask(url, model, at, prompt_words) for at in range(count)))
    return time.perf_counter() - began, list(streams)


async def stall(url: str, model: str) -> tuple[float, float]:
    """Median and longest gap between two tokens of a running stream while a long prompt arrives."""
    running = asyncio.ensure_future(ask(url, model, 0, 0))
    await asyncio.sleep(0.7)
    await ask(url, model, 1, 600)
    stream = await running
    return statistics.median(stream.gaps_s), max(stream.gaps_s)


async def measure(url: str, model: str, rounds: int) -> None:
    await round_of(url, model, 1)
    for count in (1, 8, 32):
        best = None
        for _ in range(rounds):
            wall, streams = await round_of(url, model, count)
            rate = sum(stream.tokens for stream in streams) / wall
            slowest = max(stream.first_s for stream in streams)
            best = max(best, (rate, slowest)) if best else (rate, slowest)
        assert best
        print(
            f"{count:3d} at once: {best[0]:7.1f} tokens/s   slowest first token {best[1]:.2f} s", flush=True
        )
    median, longest = await stall(url, model)
    print(f"a long prompt arrives: gap {median * 1e3:.0f} ms (median), {longest * 1e3:.0f} ms (longest)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.url:
        asyncio.run(measure(arguments.url, arguments.model, arguments.rounds))
        return
    from tests.e2e.worker.server import SMOLLM2, started

    with started(SMOLLM2, "--model-names", arguments.model) as worker:
        asyncio.run(measure(worker.url, arguments.model, arguments.rounds))


if __name__ == "__main__":
    main()
