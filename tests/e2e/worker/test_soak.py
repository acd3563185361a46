"""Hundreds of mixed requests (ten thousand with ``-m slow``): good and wrong ones, ones whose client leaves.

All are accounted for, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.worker.server import Worker, started
from tests.support.waiting import wait_until
from tests.unit.worker import tiny

REQUESTS = int(os.environ.get("LLMLAUNCH_SOAK", "10000"))
AT_ONCE = 64
WRONG: list[dict[str, Any]] = [
    {"temperature": 9}, {"n": 0}, {"max_tokens": 10**6}, {"stop": [1]}, {"logit_bias": {"x": 1}}, {"top_k": "x"},
    {"guided_regex": "(["}, {"messages": []}, {"tools": [{}]},
]  # fmt: skip
GOOD: list[dict[str, Any]] = [
    {}, {"temperature": 0}, {"n": 3}, {"logprobs": True, "top_logprobs": 2}, {"stop": ["a", "ZZ"]}, {"seed": 5},
    {"top_p": 0.5, "top_k": 3}, {"frequency_penalty": 1.5}, {"repetition_penalty": 1.3}, {"temperature": None},
    {"guided_choice": ["yes", "no"]}, {"min_tokens": 4, "max_tokens": 5},
]  # fmt: skip


TEXTS: list[dict[str, Any]] = [
    {}, {"echo": True, "logprobs": 2}, {"n": 2, "best_of": 3}, {"prompt": ["a", "bc", "A shared beginning"]},
    {"prompt": [5, 6, 7]}, {"echo": True, "max_tokens": 0},
]  # fmt: skip


class Client:
    def __init__(self, http: httpx.AsyncClient, seed: int) -> None:
        self._http = http
        self._chance = random.Random(seed)
        self.seen: Counter[str] = Counter()

    def body(self) -> dict[str, Any]:
        words = " ".join(
            self._chance.choice(("sea", "moon", "cat")) for _ in range(self._chance.randint(1, 30))
        )
        text = self._chance.choice(("", "A shared beginning of some length. ")) + words
        messages = [{"role": "user", "content": text}]
        return {"model": "tiny", "messages": messages, "max_tokens": self._chance.randint(1, 24)}

    async def one(self) -> None:
        roll = self._chance.random()
        path = "/v1/chat/completions"
        if roll < 0.15:
            answer = await self._http.post(path, json=self.body() | self._chance.choice(WRONG))
            assert answer.status_code == 400, answer.text
            self.seen["refused"] += 1
        elif roll < 0.25:
            await self._leave(path)
        elif roll < 0.35:
            text = self.body() | {"prompt": "Once upon a time"} | self._chance.choice(TEXTS)
            del text["messages"]
            answer = await self._http.post("/v1/completions", json=text)
            assert answer.status_code == 200, answer.text
            self.seen["continued"] += 1
        elif roll < 0.4:
            asked = {"model": "tiny", "input": "Hello", "max_output_tokens": 8}
            answer = await self._http.post("/v1/responses", json=asked)
            assert answer.status_code == 200, answer.text
            self.seen["responded"] += 1
        elif roll < 0.6:
            answer = await self._http.post(
                path, json=self.body() | {"stream": True} | self._chance.choice(GOOD)
            )
            assert answer.text.endswith("data: [DONE]\n\n"), answer.text
            self.seen["streamed"] += 1
        else:
            answer = await self._http.post(path, json=self.body() | self._chance.choice(GOOD))
            assert answer.status_code == 200, answer.text
            for choice in answer.json()["choices"]:
                assert choice["finish_reason"] in ("stop", "length")
            self.seen["answered"] += 1

    async def _leave(self, path: str) -> None:
        body = self.body() | {"max_tokens": 150, "ignore_eos": True, "stream": self._chance.random() < 0.5}
        patience = self._chance.random() * 0.2
        try:
            async with asyncio.timeout(None) as limit:

                async def tell(event: str, _: Any) -> None:
                    # Not before: the client's own library leaves a socket behind when it is cancelled while it connects.
                    if event == "http11.send_request_headers.started":
                        limit.reschedule(asyncio.get_running_loop().time() + patience)

                async with self._http.stream("POST", path, json=body, extensions={"trace": tell}) as answer:
                    async for _ in answer.aiter_bytes():
                        if self._chance.random() < 0.3:
                            break
        except (TimeoutError, httpx.TransportError):
            pass
        self.seen["left"] += 1


async def soak(worker: Worker, requests: int, seed: int) -> Counter[str]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=worker.url, timeout=120, trust_env=False, limits=limits) as http:
        client = Client(http, seed)
        left = iter(range(requests))

        async def lane() -> None:
            for _ in left:
                await client.one()

        try:
            await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
        except httpx.TransportError:
            assert worker.process.poll() is None, worker.log.read_text()
            raise
    return client.seen


def check(folder: Path, requests: int, growth_bytes: int) -> None:
    """Run a part to fill what fills, then ``requests``: afterwards all is as it was before them."""
    model = tiny.save(tiny.fresh("Llama", vocab_size=259), folder)
    with started(str(model), "--model-names", "tiny", "--limit-worker-concurrency", "16") as worker:
        asyncio.run(soak(worker, min(1000, requests // 2), 1))
        wait_until(worker.idle, 30, "the first part is over")
        process = psutil.Process(worker.process.pid)
        before = process.memory_info().rss, process.num_threads(), process.num_fds()
        seen = asyncio.run(soak(worker, requests, 2))
        wait_until(worker.idle, 30, "all requests are over")
        assert sum(seen.values()) == requests
        assert min(seen.values()) > requests // 100
        after = process.memory_info().rss, process.num_threads(), process.num_fds()
        print(f"RSS {before[0] >> 20} → {after[0] >> 20} MiB, {dict(seen)}")
        assert worker.metric("vllm:num_requests_running") == worker.metric("vllm:num_requests_waiting") == 0
        assert worker.metric("vllm:kv_cache_usage_perc") == 0
        assert after[0] < before[0] + growth_bytes
        assert after[1] <= before[1] + 4
        assert after[2] <= before[2] + 4
        assert "Traceback" not in worker.log.read_text()
        # All places are free: as many as there are run at once, and each says all it was asked for.
        answer = worker.chat(n=16, max_tokens=4, ignore_eos=True, temperature=1.0).json()
        assert answer["usage"]["completion_tokens"] == 16 * 4


def test_soak_briefly(tmp_path: Path) -> None:
    check(tmp_path / "m", 500, 32 << 20)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_soak(tmp_path: Path) -> None:
    check(tmp_path / "m", REQUESTS, 48 << 20)
