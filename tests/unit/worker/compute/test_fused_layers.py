"""Layers that were taken apart answer as the library's do, whoever else is in the batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from llmlaunch.worker.compute import fused_layers, onednn_weights
from tests.unit.worker import tiny
from tests.unit.worker.compute.test_onednn_weights import bf16
from tests.unit.worker.engine.test_batching_equality import check_staggered_joins

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("Llama", {}),
    "Llama, biased": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "Llama, a head of keys each": ("Llama", {"num_key_value_heads": 4}),
    "Llama, stretched": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
    ),
    "Mistral, windowed": ("Mistral", {}),
    "Mistral": ("Mistral", {"sliding_window": None}),
    "Qwen2": ("Qwen2", {}),
    "Qwen2, windowed above": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1},
    ),
    "Qwen3": ("Qwen3", {}),
}


def made(variant: str) -> Any:
    kind, settings = VARIANTS[variant]
    model = tiny.fresh(kind, **settings)
    with torch.no_grad():  # biases begin as 0, and the weights of norms as 1: nobody would miss them
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_answers_equal_generate_with_staggered_joins(variant: str) -> None:
    def change(model: Any) -> None:
        assert fused_layers.fuse(model) == 3

    check_staggered_joins(variant, made(variant), change)


@bf16
@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_packed_products_of_joined_layers_are_the_same(variant: str) -> None:
    model = made(variant).to(torch.bfloat16)
    fused_layers.fuse(model)
    layer = model.base_model.layers[1]
    changed = copy.deepcopy(layer)
    assert onednn_weights.pack(changed) == 7
    hidden = torch.randn(1, 9, 32, dtype=torch.bfloat16)
    for name in ("heads", "gates"):
        wanted, found = getattr(layer, name)(hidden), getattr(changed, name)(hidden)
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)


def left_alone(model: Any) -> bool:
    before = [type(module) for module in model.modules()]
    return fused_layers.fuse(model) == 0 and [type(module) for module in model.modules()] == before


@pytest.mark.parametrize("kind", sorted({*tiny.SETTINGS} - {"Llama", "Mistral", "Qwen2", "Qwen3"}))
def test_other_architectures_are_left_alone(kind: str) -> None:
    assert left_alone(tiny.fresh(kind))


def test_a_model_with_a_layer_that_does_more_is_left_alone() -> None:
    hooked = tiny.fresh("Llama")
    hooked.model.layers[2].mlp.register_forward_hook(lambda _module, _inputs, output: output * 2)
    assert left_alone(hooked)

    class Own(nn.Linear): ...

    other = tiny.fresh("Llama")
    other.model.layers[0].mlp.up_proj = Own(32, 48, bias=False)
    assert left_alone(other)


@torch.inference_mode()
def test_the_norm_is_the_librarys_also_for_large_numbers_and_none() -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    norm = LlamaRMSNorm(64, eps=1e-6)
    nn.init.normal_(norm.weight)
    own = fused_layers.RMSNorm(norm.weight, norm.variance_epsilon)
    for scale in (0.0, 1e-4, 1.0, 3e4):
        numbers = torch.randn(1, 5, 64) * scale
        numbers[..., 3] *= 1000  # as activations are
        torch.testing.assert_close(own(numbers), norm(numbers), rtol=1e-5, atol=1e-6)
