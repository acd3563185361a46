"""params.json of Mistral's own format, in the words of config.json."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.models.facts import LayerCache, LayerKind
from llmlaunch.models.reading.config import shape
from llmlaunch.models.reading.mistral_params import as_config

PIXTRAL = {
    "dim": 5120, "n_layers": 40, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 131072,
    "vision_encoder": {"hidden_size": 1024},
}  # fmt: skip
ONE = LayerCache(1, kv_heads=8, key_dim=128, value_dim=128)


def test_pixtral() -> None:
    found = shape(as_config(PIXTRAL))
    assert (found.architecture, found.layers, found.hidden_size, found.intermediate_size, found.vocab_size) == (
        "PixtralForConditionalGeneration", 40, 5120, 14336, 131072,
    )  # fmt: skip
    assert (found.context_length, found.attention_heads) == (128_000, 32)
    assert found.layer_caches == (LayerCache(40, kv_heads=8, key_dim=128, value_dim=128),)


@pytest.mark.parametrize(
    ("more", "field", "value"),
    [
        ({"moe": {"num_experts": 8, "num_experts_per_tok": 2}, "vision_encoder": None}, "experts", 8),
        ({"moe": {"num_experts": 8}, "vision_encoder": None}, "architecture", "MixtralForCausalLM"),
        ({"max_seq_len": 32768}, "context_length", 32768),
        ({"max_position_embeddings": 40960}, "context_length", 40960),
        ({"quantization": {"qformat_weight": "fp8_e4m3"}}, "quantisation", "fp8"),
        (
            {"n_layers": 4, "sliding_window": [None, 4096]},
            "layer_caches",
            (ONE, LayerCache(1, LayerKind.SLIDING, 8, 128, 128, window=4096)) * 2,
        ),
        (
            {
                "n_layers": 2,
                "kv_lora_rank": 512,
                "qk_rope_head_dim": 64,
                "qk_nope_head_dim": 128,
                "v_head_dim": 128,
            },
            "layer_caches",
            (LayerCache(2, kv_heads=32, key_dim=192, value_dim=128, latent=576),),
        ),
    ],
)
def test_more_of_it(more: dict[str, Any], field: str, value: object) -> None:
    assert getattr(shape(as_config({**PIXTRAL, **more})), field) == value


@pytest.mark.parametrize(
    "params",
    [{}, {"dim": "x", "moe": 1, "sliding_window": ["a"], "quantization": []}, {"sliding_window": []}],
)
def test_nonsense_never_raises(params: dict[str, Any]) -> None:
    assert shape(as_config(params)).layer_caches == ()
