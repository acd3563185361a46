"""The KV cache by layers, against known figures and what engines allocate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.engines import registry
from llmlaunch.engines.types import Engine
from llmlaunch.manifest.types import EngineName
from llmlaunch.models.facts import LayerCache, LayerKind, ModelFacts, ModelKind
from llmlaunch.planning.kv_cache import Room, bytes_per_token, cache_bytes
from tests.unit.planning.builders import DEEPSEEK, LLAMA, SMOLLM, model

VLLM, TRANSFORMERS, LLAMACPP = (registry.get(name) for name in ("vllm", "transformers", "llamacpp"))
vllm, llamacpp = model(engine=EngineName.VLLM), model(engine=EngineName.LLAMACPP)


@pytest.mark.parametrize(
    ("facts", "engine", "count", "expected"),
    [
        (SMOLLM, VLLM, 1, 23_040),  # what vLLM allots
        (LLAMA, VLLM, 1, 128 << 10),
        (LLAMA, VLLM, 8, 16 << 10),
        (LLAMA, VLLM, 16, 16 << 10),  # more GPUs than KV heads: each holds a copy
        (LLAMA, TRANSFORMERS, 2, 64 << 10),  # by layers
        (DEEPSEEK, VLLM, 1, 70_272),
        (DEEPSEEK, VLLM, 8, 70_272),  # the latent is not split
        (DEEPSEEK, TRANSFORMERS, 1, 61 * 128 * (192 + 128) * 2),  # transformers keeps the full heads
        (SMOLLM, VLLM, 3, 7_680),
        (SMOLLM, VLLM, 2, 15_360),  # 3 heads over 2 GPUs: the larger share
    ],
)
def test_bytes_per_token(facts: ModelFacts, engine: Engine, count: int, expected: int) -> None:
    assert bytes_per_token(vllm, facts, engine, count) == (expected, 0)


GEMMA = replace(
    LLAMA,
    layers=48,
    layer_caches=(
        LayerCache(40, LayerKind.SLIDING, kv_heads=8, key_dim=256, value_dim=256, window=1024),
        LayerCache(8, kv_heads=1, key_dim=512, value_dim=512),
    ),
)
FULL, WINDOWED = 8 * 2 * 512 * 2, 40 * 2 * 8 * 256 * 2
LONG = Room(1, 131_072, 1)


@pytest.mark.parametrize(
    ("engine", "args", "room", "windowed_tokens"),
    [
        pytest.param(VLLM, {}, LONG, 1024 + 2048, id="vllm: the window and a batch"),
        pytest.param(VLLM, {}, Room(8, 4096, 64), 8 * 1024 + 2048, id="vllm: windows of all, one batch"),
        pytest.param(VLLM, {}, Room(8, 512, 64), 8 * 512, id="never more than the tokens"),
        pytest.param(
            VLLM, {"disable-hybrid-kv-cache-manager": True}, LONG, 131_072, id="vllm: whole, as asked"
        ),
        pytest.param(LLAMACPP, {}, LONG, 1536, id="llama.cpp: the window and a physical batch"),
        pytest.param(LLAMACPP, {}, Room(4, 8192, 4), 4 * 1536, id="llama.cpp: for every slot"),
        pytest.param(LLAMACPP, {"swa-full": True}, LONG, 131_072, id="llama.cpp: whole, as asked"),
        pytest.param(TRANSFORMERS, {}, LONG, 131_072, id="the built-in worker keeps all columns"),
    ],
)
def test_layers_with_a_window(engine: Engine, args: dict[str, Any], room: Room, windowed_tokens: int) -> None:
    asked = replace(vllm, engine_args=args)
    tokens = room.sequences * room.tokens
    assert cache_bytes(asked, GEMMA, engine, 1, room) == FULL * tokens + WINDOWED * windowed_tokens


def test_a_state_is_kept_for_every_sequence_that_may_run() -> None:
    state = LayerCache(36, LayerKind.STATE, state_bytes=2_000_000)
    hybrid = replace(LLAMA, layer_caches=(state, LayerCache(12, kv_heads=2, key_dim=256, value_dim=256)))
    assert cache_bytes(vllm, hybrid, VLLM, 1, Room(1, 4096, 64)) == 64 * 72_000_000 + 4096 * 24_576
    assert cache_bytes(vllm, hybrid, VLLM, 2, Room(1, 4096, 64)) == 64 * 36_000_000 + 4096 * 12_288


def test_layers_without_a_cache_of_their_own_add_nothing() -> None:
    kept = LayerCache(2, kv_heads=8, key_dim=128, value_dim=128)
    partly = (kept, LayerCache(20, LayerKind.SHARED), LayerCache(10, LayerKind.NONE))
    found = replace(LLAMA, layer_caches=partly)
    assert bytes_per_token(vllm, found, VLLM, 1) == (2 * 2 * 8 * 128 * 2, 0)


def test_entries_for_several_tokens_and_keys_of_an_indexer() -> None:
    one = LayerCache(2, kv_heads=1, key_dim=512, value_dim=512, latent=512, stride=4, index_bytes=132)
    assert bytes_per_token(vllm, replace(LLAMA, layer_caches=(one,)), VLLM, 8) == (2 * (1024 + 132) // 4, 0)


@pytest.mark.parametrize(
    ("spec", "engine", "expected"),
    [
        (replace(vllm, engine_args={"kv_cache_dtype": "fp8_e4m3"}), VLLM, 64 << 10),
        (replace(vllm, engine_args={"kv_cache_dtype": "auto"}), VLLM, 128 << 10),
        (replace(llamacpp, engine_args={"cache-type-k": "q8_0", "cache-type-v": "q8_0"}), LLAMACPP, 68 << 10),
        (replace(llamacpp, engine_args={"ctk": "q4_0"}), LLAMACPP, (64 + 18) << 10),
        (model(dtype="float32"), TRANSFORMERS, 256 << 10),
    ],
)
def test_types_of_elements(spec: Any, engine: Engine, expected: int) -> None:
    assert bytes_per_token(spec, LLAMA, engine, 1) == (expected, 0)


def test_llama_cpp_keeps_windows_in_16_bits() -> None:
    """https://github.com/ggml-org/llama.cpp/pull/21277"""
    packed = replace(llamacpp, engine_args={"ctk": "q4_0", "ctv": "q4_0"})
    assert bytes_per_token(packed, GEMMA, LLAMACPP, 1) == (FULL * 9 // 32, WINDOWED)


def test_what_has_no_cache_or_an_unknown_one() -> None:
    assert cache_bytes(vllm, replace(LLAMA, kind=ModelKind.EMBED), VLLM, 1, LONG) == 0
    assert cache_bytes(vllm, replace(LLAMA, layer_caches=()), VLLM, 1, LONG) is None
