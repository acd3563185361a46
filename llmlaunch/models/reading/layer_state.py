"""Bytes of the state that a layer without a growing cache keeps of a sequence, from config.json.

The shapes are those of vLLM's ``MambaStateShapeCalculator`` for Mamba, gated delta nets, KDA, lightning attention and short
convolutions. What is rounded into the convolution is kept in 16 bits; the recurrent state in 32, as in most engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlaunch.models.reading.values import integer, mapping

_CONVOLUTION_BYTES = 2
_STATE_BYTES = 4


def state_bytes(text: Mapping[str, Any]) -> int:
    """Bytes per layer and sequence; 0 for families whose state is not known."""
    for family in (
        _gated_delta,
        _kimi_delta,
        _mamba2,
        _mamba,
        _short_convolution,
        _recurrent,
        _outer_product,
    ):
        found = family(text)
        if found is not None:
            convolution, state = found
            return convolution * _CONVOLUTION_BYTES + state * _STATE_BYTES
    return 0


def _gated_delta(text: Mapping[str, Any]) -> tuple[int, int] | None:
    """Qwen3-Next, Qwen3.5, OLMo Hybrid."""
    values, value_dim = integer(text, "linear_num_value_heads"), integer(text, "linear_value_head_dim")
    keys, key_dim = integer(text, "linear_num_key_heads"), integer(text, "linear_key_head_dim")
    if not (values and value_dim and keys and key_dim):
        return None
    kernel = integer(text, "linear_conv_kernel_dim") or 4
    return (2 * keys * key_dim + values * value_dim) * (kernel - 1), values * value_dim * key_dim


def _kimi_delta(text: Mapping[str, Any]) -> tuple[int, int] | None:
    """Kimi-Linear and its followers: queries, keys and values each have a convolution."""
    inner = mapping(text.get("linear_attn_config"))
    heads = integer(inner, "num_heads") or integer(text, "linear_num_heads")
    dim = integer(inner, "head_dim") or integer(text, "linear_head_dim")
    if not (heads and dim):
        return None
    kernel = integer(inner, "short_conv_kernel_size") or integer(text, "linear_conv_kernel_dim") or 4
    return 3 * heads * dim * (kernel - 1), heads * dim * dim


def _mamba2(text: Mapping[str, Any]) -> tuple[int, int] | None:
    heads = integer(text, "mamba_num_heads", "mamba_n_heads", "n_mamba_heads", "num_heads")
    size = integer(text, "ssm_state_size", "mamba_d_state", "state_size")
    if not (heads and size) or (text.get("n_mamba_heads") == 1 and "mamba_headdim" not in text):
        return None
    inner = integer(text, "mamba_d_ssm", "d_inner") or _expanded(text)
    dim = integer(text, "mamba_head_dim", "mamba_d_head", "mamba_headdim", "hidden_size_per_head")
    if dim is None and "num_heads" in text:
        dim = integer(text, "head_dim")
    inner = heads * dim if dim else inner
    if not inner:
        return None
    groups = integer(text, "n_groups", "mamba_n_groups", "mamba_ngroups") or 1
    kernel = integer(text, "conv_kernel", "mamba_d_conv") or 4
    return (inner + 2 * groups * size) * (kernel - 1), inner * size


def _mamba(text: Mapping[str, Any]) -> tuple[int, int] | None:
    size = integer(text, "mamba_d_state", "state_size", "ssm_state_size")
    inner = _expanded(text)
    if not (size and inner):
        return None
    kernel = integer(text, "mamba_d_conv", "conv_kernel") or 4
    return inner * (kernel - 1), inner * size


def _expanded(text: Mapping[str, Any]) -> int | None:
    hidden = integer(text, "hidden_size", "d_model")
    return (integer(text, "mamba_expand", "expand") or 2) * hidden if hidden else None


def _short_convolution(text: Mapping[str, Any]) -> tuple[int, int] | None:
    """LFM2."""
    length, hidden = integer(text, "conv_L_cache"), integer(text, "hidden_size")
    return (hidden * (length - 1), 0) if length and hidden else None


def _recurrent(text: Mapping[str, Any]) -> tuple[int, int] | None:
    """RecurrentGemma."""
    if "conv1d_width" not in text and "lru_width" not in text:
        return None
    width = integer(text, "lru_width", "hidden_size")
    return (width * ((integer(text, "conv1d_width") or 4) - 1), width) if width else None


def _outer_product(text: Mapping[str, Any]) -> tuple[int, int] | None:
    """Lightning attention (MiniMax, Ring) and RWKV: a square matrix a head."""
    hidden, heads = integer(text, "hidden_size"), integer(text, "num_attention_heads")
    if str(text.get("model_type")).startswith("rwkv"):
        head = integer(text, "head_size", "head_dim") or 64
        return (2 * hidden, hidden * head) if hidden else None
    dim = integer(text, "head_dim") or (hidden // heads if hidden and heads else None)
    return (0, heads * dim * dim) if heads and dim else None
