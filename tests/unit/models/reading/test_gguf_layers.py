"""What each layer keeps, from a GGUF header: the keys that llama.cpp's conversion writes, and what it allocates for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.engines import registry
from llmlaunch.manifest.types import EngineName
from llmlaunch.models.facts import LayerCache, LayerKind, ModelFacts
from llmlaunch.models.reading.gguf_keys import GgufKeys
from llmlaunch.models.reading.gguf_layers import layer_caches
from llmlaunch.planning.kv_cache import Room, cache_bytes, state_bytes
from tests.unit.planning.builders import model

LLAMACPP = registry.get("llamacpp")
ONE = LayerCache(1, kv_heads=2, key_dim=64, value_dim=64)
SEEN = replace(ONE, kind=LayerKind.SLIDING, window=1024)
NONE, SHARED = LayerCache(1, LayerKind.NONE), LayerCache(1, LayerKind.SHARED)
BASE = {"block_count": 4, "embedding_length": 512, "attention.head_count": 8, "attention.head_count_kv": 2}


def caches(architecture: str, **values: Any) -> tuple[LayerCache, ...]:
    named = {f"{architecture}.{key}": value for key, value in values.items()}
    return layer_caches(GgufKeys(named, architecture))


def state(elements: int) -> LayerCache:
    return LayerCache(1, LayerKind.STATE, state_bytes=4 * elements)


@pytest.mark.parametrize(
    ("architecture", "values", "expected"),
    [
        pytest.param("llama", {}, (replace(ONE, count=4),), id="all-equal"),
        pytest.param("llama", {"attention.key_length": 128}, (replace(ONE, count=4, key_dim=128),), id="longer-keys"),
        pytest.param(
            "llama", {"attention.head_count_kv": [2, 1, 0, 2]}, (ONE, replace(ONE, kv_heads=1), NONE, ONE), id="heads-by-layer"
        ),
        pytest.param("deci", {"attention.head_count": [8, 0, 8, 0]}, (ONE, NONE, ONE, NONE), id="layers-without-attention"),
        # llama.cpp reads a window where it knows which layers have it, and nowhere else.
        pytest.param("llama", {"attention.sliding_window": 1024}, (replace(ONE, count=4),), id="a-window-for-no-layer"),
        pytest.param(
            "gpt-oss", {"attention.sliding_window": 1024}, (SEEN, ONE, SEEN, ONE), id="windows-by-architecture"
        ),
        pytest.param(
            "olmo2",
            {"attention.sliding_window": 1024, "attention.sliding_window_pattern": [True, True, False, False]},
            (replace(SEEN, count=2), replace(ONE, count=2)),
            id="windows-by-layer",
        ),
        pytest.param("llama4", {}, (replace(SEEN, count=3, window=8192), ONE), id="chunks"),
        pytest.param("gemma4", {"attention.shared_kv_layers": 2}, (replace(ONE, count=2), replace(SHARED, count=2)), id="shared"),
        pytest.param("glm4moe", {"nextn_predict_layers": 1}, (replace(ONE, count=3), NONE), id="layers-for-speculation"),
        pytest.param(
            "deepseek2",
            {
                "attention.head_count_kv": 1, "attention.kv_lora_rank": 512, "attention.key_length": 576,
                "attention.value_length": 512, "attention.key_length_mla": 192, "attention.value_length_mla": 128,
            },
            (LayerCache(4, kv_heads=8, key_dim=192, value_dim=128, latent=576),),
            id="latent",
        ),
        pytest.param(
            "deepseek2",
            {"attention.head_count_kv": 8, "attention.kv_lora_rank": 512, "attention.key_length": 192, "attention.value_length": 128},
            (LayerCache(4, kv_heads=8, key_dim=192, value_dim=128),),
            id="latent-in-older-files",
        ),
        pytest.param(
            "qwen3next",
            {"full_attention_interval": 4, "ssm.conv_kernel": 4, "ssm.inner_size": 4096, "ssm.state_size": 128, "ssm.group_count": 16},
            (replace(state(3 * 8192 + 4096 * 128), count=3), ONE),
            id="gated-delta",
        ),
        pytest.param(
            "nemotron_h",
            {
                "attention.head_count_kv": [0, 0, 2, 0], "feed_forward_length": [0, 21504, 0, 0], "ssm.conv_kernel": 4,
                "ssm.inner_size": 8192, "ssm.state_size": 128, "ssm.group_count": 8,
            },
            (state(3 * 10240 + 8192 * 128), NONE, ONE, state(3 * 10240 + 8192 * 128)),
            id="mamba-and-feed-forward",
        ),
        pytest.param(
            "falcon-h1",
            {"ssm.conv_kernel": 4, "ssm.inner_size": 1024, "ssm.state_size": 64, "ssm.group_count": 1},
            (replace(ONE, count=4, state_bytes=4 * (3 * 1152 + 1024 * 64)),),
            id="attention-beside-mamba",
        ),
        pytest.param(
            "kimi-linear",
            {"attention.head_count_kv": [0, 0, 0, 2], "kda.head_dim": 128, "ssm.conv_kernel": 4},
            (replace(state(3 * 3 * 8 * 128 + 8 * 128 * 128), count=3), ONE),
            id="kda",
        ),
        pytest.param("lfm2", {"attention.head_count_kv": [0, 2, 0, 2], "shortconv.l_cache": 3}, (state(1024), ONE) * 2, id="convolutions"),
        pytest.param("rwkv7", {"wkv.head_size": 64, "token_shift_count": 2}, (replace(state(2 * 512 + 512 * 64), count=4),), id="rwkv"),
        pytest.param("llama", {"attention.head_count": None}, (), id="no-heads"),
        pytest.param("llama", {"block_count": 1 << 40}, (), id="impossible"),
        pytest.param("llama", {"block_count": "4"}, (), id="no-number"),
    ],
)  # fmt: skip
def test_layers(architecture: str, values: dict[str, Any], expected: tuple[LayerCache, ...]) -> None:
    assert caches(architecture, **{**BASE, **values}) == expected


def test_gemma_has_windows_by_architecture() -> None:
    sizes = {
        "block_count": 34,
        "attention.sliding_window": 1024,
        "attention.key_length": 256,
        "attention.value_length": 256,
    }
    found = caches("gemma3", **{**BASE, **sizes})
    assert sum(layer.count for layer in found if layer.kind is LayerKind.SLIDING) == 29


def test_gemma_3n_shares_all_but_twenty_layers() -> None:
    found = caches("gemma3n", **{**BASE, "block_count": 35, "attention.sliding_window": 512})
    assert sum(layer.count for layer in found if layer.kind is LayerKind.SHARED) == 15


def test_two_geometries_of_gemma_4() -> None:
    """48 layers of which every sixth sees everything with one head of 512; the others see 1024 tokens with 8 of 256."""
    found = caches(
        "gemma4",
        **{
            "block_count": 48, "embedding_length": 3840, "attention.head_count": 16, "attention.head_count_kv": [8, 8, 8, 8, 8, 1] * 8,
            "attention.key_length": 512, "attention.value_length": 512, "attention.key_length_swa": 256,
            "attention.value_length_swa": 256, "attention.sliding_window": 1024,
            "attention.sliding_window_pattern": [1, 1, 1, 1, 1, 0] * 8,
        },
    )  # fmt: skip
    facts = ModelFacts("m", "/m", True, "gguf", layers=48, layer_caches=found)
    asked = model(engine=EngineName.LLAMACPP)
    full = 8 * 2 * 512 * 2 * 131_072
    assert full == 2 << 30
    assert cache_bytes(asked, facts, LLAMACPP, 1, Room(1, 131_072, 1)) == full + 40 * 2 * 8 * 256 * 2 * 1536
    assert state_bytes(facts, 1) == 0
