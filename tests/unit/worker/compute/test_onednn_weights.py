"""Reordered weights: the same products, and no more memory than before."""

from __future__ import annotations

import copy
import platform
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertModel

from llmlaunch.worker.compute import onednn_weights
from tests.unit.worker import tiny

bf16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no bfloat16 for oneDNN"
)


@bf16
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [1, 7, 32, 100])
@torch.inference_mode()
def test_products_are_those_of_the_plain_layer(bias: bool, tokens: int) -> None:
    torch.manual_seed(tokens)
    plain = nn.Linear(96, 40, bias=bias, dtype=torch.bfloat16)
    layer = onednn_weights.PackedLinear(plain)
    inputs = torch.randn(1, tokens, 96, dtype=torch.bfloat16)
    torch.testing.assert_close(layer(inputs), plain(inputs), rtol=0.02, atol=0.02)
    assert torch.equal(layer.weight, plain.weight)


@bf16
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Phi", "OPT"])
@torch.inference_mode()
def test_a_packed_model_says_what_it_said(family: str) -> None:
    model = tiny.fresh(family).to(torch.bfloat16)
    changed = copy.deepcopy(model)
    assert onednn_weights.is_faster(changed)
    assert onednn_weights.pack(changed) > 0
    assert not any(type(module) is nn.Linear for module in changed.modules())
    assert changed.dtype == torch.bfloat16
    assert changed.device.type == "cpu"
    ids = torch.tensor([[5, 9, 11, 3, 40, 21]])
    torch.testing.assert_close(changed(ids).logits, model(ids).logits, rtol=0.02, atol=0.02)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="packed on x86 alone")
@torch.inference_mode()
def test_float32_is_packed_on_x86() -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = BertModel(BertConfig(vocab_size=50, **size)).eval()
    changed = copy.deepcopy(model)
    assert onednn_weights.is_faster(changed)
    assert onednn_weights.pack(changed, torch.float32) > 0
    assert not any(type(module) is nn.Linear for module in changed.modules())
    ids = torch.tensor([[5, 9, 11, 3], [7, 1, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    found, wanted = (m(input_ids=ids, attention_mask=mask) for m in (changed, model))
    torch.testing.assert_close(found.last_hidden_state, wanted.last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.pooler_output, wanted.pooler_output, rtol=1e-5, atol=1e-5)


def test_half_precision_of_the_other_kind_is_left_alone() -> None:
    assert not onednn_weights.is_faster(tiny.fresh("Llama").to(torch.float16))


class Own(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) * 2


@bf16
@torch.inference_mode()
def test_layers_that_do_more_are_left_alone() -> None:
    hooked = nn.Linear(8, 8, dtype=torch.bfloat16)
    hooked.register_forward_hook(lambda _module, _inputs, output: output + 1)
    model = nn.Sequential(Own(8, 8, dtype=torch.bfloat16), hooked, nn.Linear(8, 8))
    before = [type(module) for module in model]
    assert onednn_weights.pack(model) == 0
    assert [type(module) for module in model] == before


def test_pages_of_a_weight_file_go_back_and_can_still_be_read(tmp_path: Path) -> None:
    values = torch.arange(1 << 20, dtype=torch.float32)
    save_file({"a": values}, tmp_path / "model.safetensors")
    held = load_file(tmp_path / "model.safetensors")["a"]
    assert float(held.sum()) == float(values.sum())
    onednn_weights.release_mapped_files()
    assert torch.equal(held, values)


def test_only_maps_without_a_change_are_given_back() -> None:
    def area(name: str, anonymous: int) -> str:
        return f"{name}\nRss:      8 kB\nAnonymous:      {anonymous} kB\nVmFlags: rd mr\n"

    smaps = (
        area("1000-3000 r--p 00000000 fe:00 1 /m/model.safetensors", 0)
        + area("3000-5000 rw-p 00000000 fe:00 1 /m/model.safetensors", 4)
        + area("5000-6000 r-xp 00000000 fe:00 1 /lib/libc.so.6", 0)
        + area("7000-8000 rw-p 00000000 00:00 0 ", 0)
        + area("9000-b000 rw-p 00000000 fe:00 1 /m/a b.safetensors", 0)
    )
    assert list(onednn_weights._unchanged_maps(smaps)) == [(0x1000, 0x3000, 8192), (0x9000, 0xB000, 8192)]
