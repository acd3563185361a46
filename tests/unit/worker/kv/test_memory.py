"""How much memory a worker may take for keys and values: arithmetic, without a GPU."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.engines.transformers import Transformers
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.errors import StartupError
from llmlaunch.worker.kv import memory
from tests.unit.worker import tiny

GIB = 1 << 30
CONFIG = WorkerConfig(model="m", names=("m",))
LLAMA_8B = 128 << 10
"""Bytes of keys and values per token."""


def llama_8b(context: int = 131072) -> Any:
    text = SimpleNamespace(
        num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, head_dim=128, hidden_size=4096,
        intermediate_size=14336, vocab_size=128256, max_position_embeddings=context,
    )  # fmt: skip
    text.get_text_config = lambda: text
    return SimpleNamespace(config=text, dtype=torch.bfloat16)


def test_a_tokens_size_is_that_of_its_heads_in_all_layers() -> None:
    assert memory.token_bytes(llama_8b()) == LLAMA_8B


def test_pages_of_files_are_free_where_a_gpu_uses_main_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (7 * GIB, 120 * GIB))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=90 * GIB))
    for is_integrated, free in ((1, 90 * GIB), (0, 7 * GIB)):
        properties = SimpleNamespace(is_integrated=is_integrated)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, found=properties: found)
        assert memory.free_on(0) == free


def test_layers_count_as_they_are() -> None:
    """Gemma 4 has two geometries; layers that share another's cache have none of their own."""
    model = llama_8b()
    model.config.layer_types = ["sliding_attention"] * 16 + ["full_attention"] * 16
    model.config.sliding_window, model.config.num_kv_shared_layers = 1024, 8
    model.config.num_global_key_value_heads, model.config.global_head_dim = 1, 512
    assert memory.token_bytes(model) == 16 * 2 * 8 * 128 * 2 + 8 * 2 * 512 * 2


def test_within_a_claim_room_is_what_weights_context_and_a_step_leave() -> None:
    assert memory.room_within(60 * GIB, 15 * GIB, 20 * GIB, GIB) == 4 * GIB - memory.GPU_RESERVE
    assert memory.room_within(2 * GIB, 15 * GIB, 20 * GIB, GIB) == GIB, "no more than is free"
    assert memory.room_within(60 * GIB, 20 * GIB, 20 * GIB, GIB) == 0


def test_without_a_claim_a_share_of_what_is_free_is_left_to_others() -> None:
    assert memory.room_within(60 * GIB, 15 * GIB, None, GIB) == int(59 * GIB * memory.GPU_SHARE)
    assert memory.room_within(GIB // 2, 0, None, GIB) == 0


@given(
    st.integers(0, 200 * GIB), st.integers(0, 200 * GIB), st.none() | st.integers(0, 200 * GIB), st.integers(0, 9 * GIB)
)  # fmt: skip
def test_room_is_never_more_than_is_free_or_claimed(
    free: int, taken: int, claim: int | None, working: int
) -> None:
    room = memory.room_within(free, taken, claim, working)
    assert 0 <= room <= free
    if room and claim is not None:
        assert taken + room + working <= claim


def test_what_the_plan_counts_with_where_nobody_says_is_what_the_worker_makes_of_it() -> None:
    rule = Transformers.memory
    assert (rule.default_sequences, rule.default_context) == (
        memory.SHARING_ROWS,
        memory.SHARING_COLUMNS,
    )
    assert (rule.batch_tokens, rule.graph_bytes) == (memory.PROMPT_TOKENS, memory.GRAPH_BYTES)
    assert rule.context_bytes == memory.GPU_RESERVE
    planned = rule.default_sequences * rule.default_context * LLAMA_8B
    room, _ = memory.capacity(llama_8b(), replace(CONFIG, kv_cache_bytes=planned), "cuda", 131072)
    assert (room.rows, room.columns) == (rule.default_sequences, rule.default_context)


@pytest.mark.parametrize(
    ("tokens", "asked", "concurrency", "rows", "columns"),
    [
        (400_000, None, 32, 8, 50_000),
        (2_000_000, None, 32, 15, 131_072),
        (20_000_000, None, 32, 32, 131_072),
        (10_000, None, 32, 2, 4096),
        (3000, None, 32, 1, 3000),
        (400_000, None, 2, 2, 131_072),
        (400_000, 100_000, 32, 4, 100_000),
        (400_000, 2048, 32, 32, 2048),
        (30_000, 100_000, 32, 1, 30_000),
    ],
)
def test_rows_on_a_gpu(tokens: int, asked: int | None, concurrency: int, rows: int, columns: int) -> None:
    config = replace(
        CONFIG, kv_cache_bytes=tokens * LLAMA_8B, max_model_len=asked, max_concurrency=concurrency
    )
    context = min(asked or 131_072, 131_072)
    room, words = memory.capacity(llama_8b(), config, "cuda", context)
    assert (room.rows, room.columns, room.tokens) == (rows, columns, rows * columns)
    assert str(columns) in words
    assert ("--max-model-len" in words) == (columns < context)


def test_on_a_cpu_rows_cost_nothing_until_they_are_used() -> None:
    room, _ = memory.capacity(llama_8b(), replace(CONFIG, kv_cache_bytes=400_000 * LLAMA_8B), "cpu", 131_072)
    assert (room.rows, room.columns, room.tokens) == (32, 131_072, 400_000)


def test_no_room_at_all_is_told_with_the_numbers() -> None:
    with pytest.raises(StartupError, match="0 MiB are free, one token takes 131072 bytes"):
        memory.capacity(llama_8b(), replace(CONFIG, kv_cache_bytes=100), "cuda", 4096)


def test_pieces_of_prompts_are_smaller_where_their_masks_would_be_huge() -> None:
    assert memory.prompt_tokens("cuda", 8192) == memory.PROMPT_TOKENS
    assert memory.prompt_tokens("cuda", 131_072) == 512
    assert memory.prompt_tokens("cuda", 10_000_000) == 128
    assert memory.prompt_tokens("cpu", 131_072) == memory.PROMPT_TOKENS
    large = memory.working_bytes(llama_8b(), 32, 2048, 8192)
    assert 250 << 20 < large < 700 << 20
    assert memory.working_bytes(llama_8b(), 32, 512, 131_072) < large


def test_memory_that_is_reserved_at_the_start_is_there_and_says_nothing() -> None:
    model = tiny.model("Llama")
    expected = tiny.reference(model, [5, 6, 7], 8)
    batching = tiny.batching(model, rows=2, columns=32)
    batching.reserve()
    for layer in batching._cache.layers:
        assert layer.keys.shape == layer.values.shape == (2, 2, 32, 8)
    assert not batching.busy
    run = tiny.Run(batching)
    run.add(tiny.request("a", [5, 6, 7]))
    run.finish()
    assert run.tokens["a"] == expected
