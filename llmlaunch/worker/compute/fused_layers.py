"""Llama-style decoder layers in a third of the operations.

In a decode of a small model on a CPU, reading the weights takes half as long as the overhead of Python and PyTorch
between many small operations. So known layers are rebuilt: linear layers with the same input become one product, the
norm one operation instead of eight, and the rotary embedding is applied to queries and keys together. The results
are the same up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from llmlaunch.worker.compute.onednn_weights import JoinedLinear, has_hooks
from llmlaunch.worker.kv.cache import attend

LAYERS = {
    "llama.modeling_llama.LlamaDecoderLayer",
    "mistral.modeling_mistral.MistralDecoderLayer",
    "qwen2.modeling_qwen2.Qwen2DecoderLayer",
    "qwen3.modeling_qwen3.Qwen3DecoderLayer",
}
"""In ``transformers.models``. All compute what :class:`FusedLayer` does; tests compare them token for token."""


class RMSNorm(nn.Module):
    """RMSNorm (arXiv:1910.07467) through PyTorch's layer norm, the only fused norm kernel for CPUs.

    Numbers together with their negatives have mean 0, and the mean of their squares as variance: their layer norm is
    the RMSNorm.
    """

    _weight: Tensor

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self._size = weight.shape[-1]
        self._eps = eps
        self.register_buffer(
            "_weight", torch.cat((weight.detach(), torch.zeros_like(weight))), persistent=False
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalize ``inputs`` ``[…, size]``; same shape."""
        both = torch.cat((inputs, -inputs), -1)
        normal = functional.layer_norm(both, (2 * self._size,), self._weight, None, self._eps)
        return normal[..., : self._size]


class FusedRotary(nn.Module):
    """Rotary embeddings as :class:`FusedLayer` needs them: broadcast over heads, with the sign of the rotated half."""

    def __init__(self, rotary: nn.Module) -> None:
        super().__init__()
        self._rotary = rotary

    def forward(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of ``position_ids`` ``[1, tokens]``, each ``[1, tokens, 1, head_dim]``."""
        cos, sin = self._rotary(hidden, position_ids)
        low, high = sin.chunk(2, -1)
        return cos[:, :, None], torch.cat((-low, high), -1)[:, :, None]


class FusedLayer(nn.Module):
    """One decoder layer over the KV cache: attention, then the gated MLP, each with its residual."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self._index = attention.layer_idx
        self._dim = attention.head_dim
        self._heads = attention.q_proj.out_features // self._dim
        self._kv_heads = attention.k_proj.out_features // self._dim
        self._scaling = attention.scaling
        self._window = _window(attention)
        self.attention_norm = _norm(layer.input_layernorm)
        self.heads = JoinedLinear([attention.q_proj, attention.k_proj, attention.v_proj])
        self.query_norm = _norm(attention.q_norm) if hasattr(attention, "q_norm") else None
        self.key_norm = _norm(attention.k_norm) if hasattr(attention, "k_norm") else None
        self.attention_out = attention.o_proj
        self.mlp_norm = _norm(layer.post_attention_layernorm)
        self.gates = JoinedLinear([mlp.gate_proj, mlp.up_proj])
        self.activation = mlp.act_fn
        self.mlp_out = mlp.down_proj

    def forward(
        self, hidden: Tensor, *, past_key_values: Any, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        """The layer's output for ``hidden`` ``[1, tokens, size]``, of the same shape. Writes keys and values to the cache."""
        size = hidden.shape[1]
        heads = self.heads(self.attention_norm(hidden)).view(1, size, -1, self._dim)
        unrotated, values = torch.split(heads, [self._heads + self._kv_heads, self._kv_heads], 2)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = torch.split(unrotated, [self._heads, self._kv_heads], 2)
            unrotated = torch.cat((self.query_norm(query), self.key_norm(key)), 2)
        cos, sin = position_embeddings
        rotated = torch.addcmul(unrotated * cos, unrotated.roll(self._dim // 2, -1), sin)
        query, key = torch.split(rotated.transpose(1, 2), [self._heads, self._kv_heads], 1)
        keys, values = past_key_values.update(key, values.transpose(1, 2), self._index)
        attended, _weights = attend(self, query, keys, values, None, self._scaling, self._window)
        hidden = self.attention_out(attended.view(1, size, -1)) + hidden
        gate, up = self.gates(self.mlp_norm(hidden)).chunk(2, -1)
        added: Tensor = self.mlp_out(self.activation(gate) * up) + hidden
        return added


def _window(attention: Any) -> int | None:
    """Number of columns that a token sees; None: all. Mistral's attention reads it from its configuration."""
    holder = attention.config if type(attention).__name__ == "MistralAttention" else attention
    window: int | None = getattr(holder, "sliding_window", None)
    return window


def _norm(norm: Any) -> RMSNorm:
    return RMSNorm(norm.weight, norm.variance_epsilon)


def fuse(model: Any) -> int:
    """Replace the decoder layers of ``model`` if all are known; return how many.

    Afterwards the model can only compute steps of the KV cache.
    """
    base = model.base_model
    layers = getattr(base, "layers", None)
    if (
        not isinstance(layers, nn.ModuleList)
        or not hasattr(base, "rotary_emb")
        or not all(map(_known, layers))
    ):
        return 0
    for at, layer in enumerate(layers):
        layers[at] = FusedLayer(layer).eval()
    base.rotary_emb = FusedRotary(base.rotary_emb)
    return len(layers)


def _known(layer: nn.Module) -> bool:
    """Whether it is exactly one of :data:`LAYERS`, on a CPU, unmodified: without hooks, not wrapped, not quantised."""
    name = f"{type(layer).__module__}.{type(layer).__qualname__}".removeprefix("transformers.models.")
    modules = list(layer.modules())
    return (
        name in LAYERS
        and not any(map(has_hooks, modules))
        and all(type(module) is nn.Linear for module in modules if hasattr(module, "in_features"))
        and all(type(weight) is nn.Parameter and weight.device.type == "cpu" for weight in layer.parameters())
    )
