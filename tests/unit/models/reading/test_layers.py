"""What each layer keeps, from config.json: a table of families, and the ways in which configs say it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.engines import registry
from llmlaunch.manifest.types import EngineName
from llmlaunch.models.facts import LayerCache, LayerKind, ModelFacts
from llmlaunch.models.reading.config import shape
from llmlaunch.planning import kv_cache
from tests.unit.models.reading.families import FAMILIES, Family
from tests.unit.planning.builders import model

VLLM = registry.get("vllm")
vllm = model(engine=EngineName.VLLM)


def facts(config: dict[str, Any]) -> ModelFacts:
    found = shape(config)
    return ModelFacts("m", "/m", True, "safetensors", layers=found.layers, layer_caches=found.layer_caches)


@pytest.mark.parametrize("family", [pytest.param(family, id=family.model) for family in FAMILIES])
def test_bytes_a_token_of_current_families(family: Family) -> None:
    found = facts(family.config)
    assert kv_cache.bytes_per_token(vllm, found, VLLM, 1) == (family.full, family.windowed)
    assert sum(layer.count for layer in found.layer_caches) == found.layers


def test_forty_families_are_in_the_table() -> None:
    assert len({family.model for family in FAMILIES}) == len(FAMILIES) >= 40


@pytest.mark.parametrize(
    ("name", "layers", "each"),
    [
        # Two convolutions of 16 bits and a state of 32: (2·16·128 + 32·128)·3 and 32·128·128 elements.
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 36, 8192 * 3 * 2 + 32 * 128 * 128 * 4),
        ("moonshotai/Kimi-Linear-48B-A3B-Instruct", 20, 3 * 4096 * 3 * 2 + 32 * 128 * 128 * 4),
        ("nvidia/Nemotron-H-8B-Base-8K", 24, (8192 + 2 * 8 * 128) * 3 * 2 + 8192 * 128 * 4),
        ("ai21labs/Jamba-v0.1", 28, 8192 * 3 * 2 + 8192 * 16 * 4),
        ("tiiuae/Falcon-H1-34B-Instruct", 72, (4096 + 2 * 2 * 256) * 3 * 2 + 4096 * 256 * 4),
        ("LiquidAI/LFM2-1.2B", 10, 2048 * 2 * 2),
        ("google/recurrentgemma-2b", 18, 2560 * 3 * 2 + 2560 * 4),
        ("MiniMaxAI/MiniMax-Text-01", 70, 64 * 128 * 128 * 4),
        ("Qwen/Qwen3-8B", 36, 0),
    ],
)
def test_states_of_layers_whose_cache_does_not_grow(name: str, layers: int, each: int) -> None:
    family = next(family for family in FAMILIES if family.model == name)
    found = facts(family.config)
    assert {layer.state_bytes for layer in found.layer_caches if layer.state_bytes} == (
        {each} if each else set()
    )
    assert kv_cache.state_bytes(found, 1) == layers * each
    assert kv_cache.state_bytes(found, 2) == layers * each // 2


BASE = {"hidden_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 32, "num_key_value_heads": 8}
ONE = LayerCache(1, kv_heads=8, key_dim=128, value_dim=128)
SHARED, NONE = LayerCache(1, LayerKind.SHARED), LayerCache(1, LayerKind.NONE)
SEEN = replace(ONE, kind=LayerKind.SLIDING, window=1024)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({}, (replace(ONE, count=4),), id="all-equal"),
        pytest.param({"num_key_value_layers": 1}, (ONE, replace(SHARED, count=3)), id="mlkv"),
        pytest.param({"num_kv_shared_layers": 9}, (replace(SHARED, count=4),), id="more-shared-than-there-are"),
        pytest.param({"kv_source_layers": [0, 0, 2, 2]}, (ONE, SHARED, ONE, SHARED), id="sources"),
        pytest.param({"kv_reuse_group": [[1, 2], [3, 9]]}, (replace(ONE, count=2), SHARED, ONE), id="reuse-groups"),
        pytest.param(
            {"num_kv_heads": [8, 8, 4, 2], "num_key_value_heads": None},
            (replace(ONE, count=2), replace(ONE, kv_heads=4), replace(ONE, kv_heads=2)),
            id="heads-by-layer",
        ),
        pytest.param(
            {"per_layer_config": {"3": {"head_dim": 256, "num_key_value_heads": 2}}},
            (replace(ONE, count=3), replace(ONE, kv_heads=2, key_dim=256, value_dim=256)),
            id="per-layer-config",
        ),
        pytest.param(
            {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 1024},
            (SEEN, ONE, SEEN, ONE),
            id="windows",
        ),
        pytest.param({"layer_types": ["sliding_attention"] * 4}, (replace(ONE, count=4),), id="windows-of-unknown-size"),
        pytest.param({"layer_types": ["full_attention", "mlp", "moe"]}, (ONE, replace(NONE, count=2), ONE), id="feed-forward"),
        pytest.param(
            {
                "block_configs": [
                    {"attention": {"no_op": True}}, {"attention": {"replace_with_linear": True}},
                    {"attention": {"n_heads_in_group": 16}}, {"attention": {"window_length": 1024}},
                ]
            },
            (replace(NONE, count=2), replace(ONE, kv_heads=2), SEEN),
            id="blocks",
        ),
        pytest.param(
            {
                "model_type": "deepseek_v4", "head_dim": 512, "sliding_window": 128, "compress_ratios": [0, 4, 128, 128],
                "index_head_dim": 128,
            },
            (
                LayerCache(1, LayerKind.SLIDING, 1, 512, 512, window=128, latent=512),
                LayerCache(1, LayerKind.FULL, 1, 512, 512, latent=512, stride=4, index_bytes=132, state_bytes=128 * 1024),
                LayerCache(2, LayerKind.FULL, 1, 512, 512, latent=512, stride=128, state_bytes=128 * 1024),
            ),
            id="compressed",
        ),
        pytest.param({"hidden_size": None}, (), id="no-head-size"),
        pytest.param({"num_hidden_layers": None}, (), id="no-layers"),
        pytest.param({"num_hidden_layers": 1 << 40}, (), id="impossible"),
    ],
)  # fmt: skip
def test_layers(config: dict[str, Any], expected: tuple[LayerCache, ...]) -> None:
    assert shape({**BASE, **config}).layer_caches == expected
