"""Workers that have too little: room for keys and values, memory of the device, a cache that can be shared."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.worker.server import MINILM, Worker, started
from tests.support.waiting import wait_until
from tests.unit.worker import tiny
from tests.unit.worker.engine.test_sequential import unfit

TOKEN_BYTES = 2 * 3 * 2 * 8 * 4
"""Keys and values of one token of the tiny Llama: three layers, two heads of eight, in float32."""
CONTEXT = 900
HUGE = 600
"""Tokens of a prompt that the device of :data:`SMALL_DEVICE` has no memory for."""
SMALL_DEVICE = f"""
import torch
from llmlaunch.cli import main
from llmlaunch.worker.engine import batching

whole = batching.ContinuousBatching._forward


def passed(self, spans):
    if any(span.prompt and span.start + len(span.tokens) >= {HUGE} for span in spans):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return whole(self, spans)


batching.ContinuousBatching._forward = passed
main()
"""
LOST_DEVICE = """
from llmlaunch.cli import main
from llmlaunch.worker.engine import batch_inference, batching
from llmlaunch.worker.compute import device
from llmlaunch.worker.errors import DeviceLostError


def broken(*_):
    raise RuntimeError("CUDA error: unspecified launch failure")


def lost(_):
    raise DeviceLostError(
        "cpu has failed: CUDA error: unspecified launch failure", hint="only a new process can use it"
    )


batching.ContinuousBatching._forward = batch_inference.BatchRunner.forward = broken
device.check_alive = lost
main()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings: dict[str, Any] = {"vocab_size": 259, "max_position_embeddings": CONTEXT}
    return tiny.save(tiny.fresh("Llama", **settings), tmp_path_factory.mktemp("model"))


@dataclass
class Told:
    """What a stream told."""

    tokens: int = 0
    finish: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None


async def _listen(http: httpx.AsyncClient, told: Told, asked: dict[str, Any]) -> None:
    message = {"role": "user", "content": "Say something."}
    body = {"model": "tiny", "messages": [message], "stream": True, "ignore_eos": True, "logprobs": True,
            "stream_options": {"include_usage": True}}  # fmt: skip
    async with http.stream("POST", "/v1/chat/completions", json=body | asked) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                _note(told, json.loads(line[6:]))


def _note(told: Told, event: dict[str, Any]) -> None:
    told.error = event.get("error")
    told.usage = event.get("usage") or told.usage
    for choice in event.get("choices", ()):
        told.tokens += len((choice["logprobs"] or {"content": ()})["content"])
        told.finish = choice["finish_reason"]


async def listen(worker: Worker, tolds: list[Told], asked: list[dict[str, Any]]) -> None:
    """Streams of chat, side by side, each into its ``told``."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=worker.url, timeout=60, trust_env=False, limits=limits) as http:
        await asyncio.gather(*(_listen(http, *pair) for pair in zip(tolds, asked, strict=True)))


def test_answers_that_outgrow_the_room_make_way_and_come_whole(model: Path) -> None:
    """Nobody says how long the answers will be, and each fills the whole context: not all that begin can go on."""
    room = str(1500 * TOKEN_BYTES)
    with started(str(model), "--model-names", "tiny", "--kv-cache-bytes", room) as worker:
        tolds = [Told() for _ in range(6)]
        asyncio.run(listen(worker, tolds, [{"user": str(at)} for at in range(6)]))
        assert worker.metric("vllm:num_preemptions_total") > 0
        for told in tolds:
            assert (told.error, told.finish) == (None, "length")
            assert told.usage["total_tokens"] == CONTEXT
            assert told.tokens == told.usage["completion_tokens"]
        assert worker.metric("vllm:kv_cache_usage_perc") == worker.metric("vllm:num_requests_running") == 0
        never = worker.post("/v1/completions", model="tiny", prompt=[5] * 1000, max_tokens=5)
        assert never.status_code == 400
        assert "1005" in never.json()["error"]["message"]


def test_a_device_that_runs_out_of_memory_is_an_answer_and_the_worker_lives(
    model: Path, tmp_path: Path
) -> None:
    script = tmp_path / "small_device.py"
    script.write_text(SMALL_DEVICE)
    with started(str(model), "--model-names", "tiny", program=(str(script),)) as worker:

        async def crowd() -> list[httpx.Response]:
            tolds = [Told(), Told()]
            streams = asyncio.ensure_future(listen(worker, tolds, [{}, {}]))
            while not all(told.tokens for told in tolds):
                await asyncio.sleep(0.01)
            body = {"model": "tiny", "prompt": [5] * HUGE, "max_tokens": 5}
            async with httpx.AsyncClient(base_url=worker.url, timeout=60, trust_env=False) as http:
                refused = await http.post("/v1/completions", json=body)
            await streams
            # Whatever was in the cache is lost with it: those in the same step are told, too.
            assert {(told.error or {}).get("code") for told in tolds} <= {"out_of_memory", None}
            return [refused]

        (refused,) = asyncio.run(crowd())
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "out_of_memory"
        assert "Traceback" not in worker.log.read_text()
        assert worker.idle()
        assert worker.get("/ready").status_code == 200
        answer = worker.chat(n=32, max_tokens=4, ignore_eos=True, temperature=1.0).json()
        assert answer["usage"]["completion_tokens"] == 32 * 4
        assert worker.metric("vllm:kv_cache_usage_perc") == 0


@pytest.mark.parametrize("kind", ["completions", "embeddings"])
def test_a_worker_whose_device_is_lost_ends(model: Path, tmp_path: Path, kind: str) -> None:
    """Answering every request with an error for ever would be alive for its supervisor, and dead for everybody else."""
    script = tmp_path / "lost_device.py"
    script.write_text(LOST_DEVICE)
    folder, asked = (str(model), {"prompt": "x"}) if kind == "completions" else (MINILM, {"input": "x"})
    with started(folder, "--model-names", "tiny", program=(str(script),)) as worker:
        answer = worker.post(f"/v1/{kind}", model="tiny", **asked)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_error")
        assert worker.process.wait(30) == 1
        said = worker.log.read_text()
        assert "cpu has failed: CUDA error: unspecified launch failure" in said
        assert "only a new process can use it" in said


def test_a_model_that_cannot_share_a_batch_says_so(tmp_path: Path) -> None:
    folder = tiny.save(unfit("Mamba", vocab_size=259), tmp_path / "m")
    with started(str(folder), "--model-names", "tiny") as worker:
        health = worker.get("/health").json()
        assert health["mode"] == "one request at a time"
        assert "MambaForCausalLM" in health["warning"]
        assert "requests run one at a time, because MambaForCausalLM" in worker.log.read_text()
        answers = [worker.chat(max_tokens=5, ignore_eos=True, n=2).json() for _ in range(2)]
        assert all(answer["usage"]["completion_tokens"] == 10 for answer in answers)
        refused = worker.post(
            "/v1/completions", model="tiny", prompt="ab", max_tokens=2, echo=True, logprobs=1
        )
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "echo"
        wait_until(worker.idle, 10)
