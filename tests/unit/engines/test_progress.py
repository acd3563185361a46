"""Which lines of an engine's log show that its start goes on, and how far it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmlaunch.engines import progress
from llmlaunch.supervision.logs.printed_lines import read_step

FOLDER = Path(__file__).parents[2] / "data" / "engine_logs"
WHEN = "(EngineCore pid=7) INFO 11-26 18:52:36 [a.py:1] "
SGLANG_WHEN = "[2025-08-04 10:10:06 TP0] "


def steps(rows: list[str], patterns: tuple[str, ...]) -> list[tuple[str, float | None]]:
    compiled = tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)
    found = (read_step(row, compiled) for row in rows)
    return [(step.text, step.share) for step in found if step]


def test_a_healthy_start_of_vllm() -> None:
    rows = (FOLDER / "vllm-healthy-start.log").read_text().split("\n")
    assert [(text[:50], share) for text, share in steps(rows, progress.VLLM)] == [
        ("Resolved architecture: LlamaForCausalLM", None),
        ("Initializing a V1 LLM engine (v0.32.0) with config", None),
        ("Starting to load model <path>", None),
        ("Initializing model took 0.222571 seconds", None),
        ("Loading safetensors checkpoint shards: 0% (0/1)", 0.0),
        ("Loading safetensors checkpoint shards: 100% (1/1)", 1.0),
        ("Loading safetensors checkpoint shards: 100% (1/1)", 1.0),
        ("Loading weights took 4.38 seconds", None),
        ("CPU KV cache size: 46,592 tokens, Maximum concurre", None),
        ("init engine (profile, create kv cache, warmup mode", None),
        ("Starting vLLM server on http://127.0.0.1:21431", None),
        ("Application startup complete.", None),
    ]


def test_a_healthy_start_of_llama_cpp() -> None:
    rows = (FOLDER / "llamacpp-healthy-start.log").read_text().split("\n")
    assert [" ".join(text.split()) for text, _ in steps(rows, progress.LLAMACPP)] == [
        "srv load_model: loading model '<path>'",
        "cmn init: llama threadpool init, n_threads = 1",
        "srv load_model: initializing, n_slots = 4, n_ctx_slot = 2048, kv_unified = 'false'",
        "srv init: model loaded",
        "srv init: listening on http://127.0.0.1:21441",
        "listening http://127.0.0.1:21441",
    ]


@pytest.mark.parametrize(
    ("patterns", "row", "share"),
    [
        (progress.VLLM, WHEN + "torch.compile takes 12.3 s in total", None),
        (progress.VLLM, WHEN + "Dynamo bytecode transform time: 5.1 s", None),
        (progress.VLLM, WHEN + "Available KV cache memory: 9.21 GiB", None),
        (progress.VLLM, "Capturing CUDA graphs (decode, FULL):  45%|████▌     | 30/67 [00:02<00:03]", 0.45),
        (progress.VLLM, "model-00001-of-00002.safetensors:  12%|█▏        | 595M/4.97G [00:10<01:12]", 0.12),
        (progress.SGLANG, SGLANG_WHEN + "Load weight begin. avail mem=78.84 GB", None),
        (progress.SGLANG, SGLANG_WHEN + "KV Cache is allocated. #tokens: 30192, K size: 1.38 GB", None),
        (progress.SGLANG, SGLANG_WHEN + "Memory pool end. avail mem=74.76 GB", None),
        (progress.SGLANG, SGLANG_WHEN + "Capture cuda graph begin. This can take up to minutes.", None),
        (progress.SGLANG, "Multi-thread loading shards:  25% Completed | 2/8 [00:01<00:03,  1.5it/s]", 0.25),
        (progress.SGLANG, SGLANG_WHEN + "LOAD WEIGHT END. type=LlamaForCausalLM", None),
        (progress.LLAMACPP, "0.00.500.000 I load_tensors: offloaded 33/33 layers to GPU", None),
        (progress.LLAMACPP, "llama_model_loader: loaded meta data with 25 key-value pairs", None),
        (progress.LLAMACPP, "common_init_from_params: warming up the model with an empty run", None),
        (progress.LLAMACPP, "Downloading model.gguf ━━━━━━━━━━━   42%", 0.42),
    ],
)
def test_what_shows_progress(patterns: tuple[str, ...], row: str, share: float | None) -> None:
    ((_, found),) = steps([row], patterns)
    assert found == share


@pytest.mark.parametrize(
    ("patterns", "row"),
    [
        (progress.VLLM, WHEN + "Enforce eager set, disabling torch.compile and CUDAGraphs."),
        (
            progress.VLLM,
            "DEBUG 07-10 14:48:13 [utils.py:485] Waiting for 1 local, 0 remote core engine proc(s) to start.",
        ),
        (
            progress.VLLM,
            WHEN
            + "Engine 000: Avg prompt throughput: 3.6 tokens/s, GPU KV cache usage: 0.3%, Prefix cache hit rate: 0.0%",
        ),
        (progress.VLLM, 'INFO:     127.0.0.1:41016 - "GET /health HTTP/1.1" 503 Service Unavailable'),
        (progress.SGLANG, SGLANG_WHEN + "Ignore import error when loading sglang.srt.models"),
        (progress.LLAMACPP, "srv  log_server_r: request: GET /health 127.0.0.1 503"),
    ],
)
def test_what_shows_none(patterns: tuple[str, ...], row: str) -> None:
    assert steps([row], patterns) == []
