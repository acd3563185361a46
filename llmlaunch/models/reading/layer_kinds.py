"""Which layers of a model attend to everything, which to a window, and which keep a state instead: config.json's many ways to say it.

Pure. The keys are those of the published configurations; the functions name the families that use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlaunch.models.facts import LayerKind
from llmlaunch.models.reading.values import integer, mapping, names, numbers

FULL, SLIDING, STATE, NONE = LayerKind.FULL, LayerKind.SLIDING, LayerKind.STATE, LayerKind.NONE
BOTH, BOTH_SLIDING = "both", "both, in a window"
"""Attention and a state in one layer (Falcon-H1, Zamba2; with windows Hymba and Inkling)."""
_STATE_ONLY = {"mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv5", "rwkv6", "rwkv7", "xlstm"}
# By parts of a layer's name, the first that fits: full_attention, linear_attention, mamba, conv, moe …
_BY_NAME: tuple[tuple[tuple[str, ...], LayerKind | str], ...] = (
    (("hybrid_sliding",), BOTH_SLIDING),
    (("hybrid",), BOTH),
    (("linear", "mamba", "conv", "recurrent", "delta", "kda", "ssm", "rwkv", "lightning"), STATE),
    (("sliding", "chunked", "local", "window", "swa"), SLIDING),
    (("mlp", "moe", "ffn", "no_op", "cross"), NONE),
)
Kinds = list[LayerKind | str]


def kinds(text: Mapping[str, Any], layers: int) -> Kinds:
    """One :class:`LayerKind` or :data:`BOTH` for each of ``layers`` layers."""
    found: Kinds = [_by_name(name) for name in _named(text, layers)]
    found = found or [*_windows(text, layers)]
    # Lists may go on with the layers that predict further tokens (Step 3), or end early.
    found = found[:layers] + [FULL] * (layers - len(found))
    for index in numbers(
        text.get("cross_attention_layers")
    ):  # Llama 3.2 Vision: these keep the image's keys only
        if 0 <= index < layers:
            found[index] = NONE
    if window(text):
        return found
    return [{SLIDING: FULL, BOTH_SLIDING: BOTH}.get(kind, kind) for kind in found]


def window(text: Mapping[str, Any]) -> int | None:
    """Tokens that a layer with a window keeps."""
    return integer(
        text, "sliding_window", "sliding_window_size", "attention_chunk_size", "attention_window_size", "attn_window_size",
        "window_size",
    )  # fmt: skip


def sliding_by_pattern(layers: int, pattern: int) -> list[bool]:
    """Which layers have a window when every ``pattern``-th sees everything (Gemma 2: 2, Gemma 3: 6)."""
    return [pattern <= 0 or (i + 1) % pattern != 0 for i in range(layers)]


def listed_names(text: Mapping[str, Any]) -> list[str]:
    """The names of all layers, if the config lists them."""
    for key in ("layer_types", "layers_block_type", "attention_layers", "mixer_types"):
        found = names(text.get(key))
        if found:
            return found
    return []


def _by_name(name: str) -> LayerKind | str:
    return next((kind for parts, kind in _BY_NAME if any(part in name for part in parts)), FULL)


def _named(text: Mapping[str, Any], layers: int) -> list[str]:
    """One name a layer, however the config says it; empty when it does not."""
    found = listed_names(text)
    if found:
        return found
    pattern = text.get("hybrid_override_pattern")  # Nemotron-H: M Mamba, * attention, - and E feed-forward
    if isinstance(pattern, str) and pattern:
        return [{"*": "full", "M": "mamba"}.get(mark, "mlp") for mark in pattern]
    marks = numbers(text.get("hybrid_layer_pattern"))  # MiMo-V2: 1 has a window
    if marks:
        return ["sliding" if mark else "full" for mark in marks]
    pattern = text.get("sliding_window_pattern")  # EXAONE 4: "LLLG", local and global, repeated
    if isinstance(pattern, str) and pattern:
        return ["sliding" if pattern[i % len(pattern)] == "L" else "full" for i in range(layers)]
    blocks = names(text.get("block_types"))  # RecurrentGemma repeats its pattern; its attention is windowed
    if blocks:
        local = "sliding" if integer(text, "attention_window_size") else "full"
        return [local if blocks[i % len(blocks)] == "attention" else "recurrent" for i in range(layers)]
    return _attending(text, layers) or _by_family(text, layers)


def _attending(text: Mapping[str, Any], layers: int) -> list[str]:
    """Hybrids that say which layers attend: by list (Bamba, LFM2, MiniMax, Kimi-Linear) or by period (Jamba, Qwen3-Next)."""
    for key in ("attn_layer_indices", "full_attn_idxs"):
        if isinstance(text.get(key), list):
            attending = set(numbers(text[key]))
            return ["full" if i in attending else "linear" for i in range(layers)]
    linear = mapping(text.get("linear_attn_config"))
    attending = set(numbers(linear.get("full_attn_layers")))
    if attending:  # counted from 1
        return ["full" if i + 1 in attending else "linear" for i in range(layers)]
    flags = text.get("attn_type_list")
    if isinstance(flags, list) and flags:
        return ["full" if flag == 1 else "linear" for flag in flags]
    period = integer(text, "attn_layer_period")
    if period:
        offset = text.get("attn_layer_offset") or 0
        return ["full" if i % period == offset else "mamba" for i in range(layers)]
    interval = integer(text, "full_attention_interval")
    if interval:
        return ["linear" if (i + 1) % interval else "full" for i in range(layers)]
    group = integer(text, "layer_group_size")  # Ling and Ring; what is left over after whole groups attends
    if group:
        whole = layers // group * group
        return ["linear" if (i + 1) % group and i < whole else "full" for i in range(layers)]
    return []


def _by_family(text: Mapping[str, Any], layers: int) -> list[str]:
    """What only a family's own code says."""
    family = str(text.get("model_type"))
    if family in _STATE_ONLY:
        return ["linear"] * layers
    if family == "falcon_h1":
        return ["hybrid"] * layers
    if family == "hymba":
        seeing = set(numbers(text.get("global_attn_idx")))
        return ["hybrid" if i in seeing else "hybrid_sliding" for i in range(layers)]
    if family == "phi4flash":
        # SambaY: Mamba and windows take turns in the first half; then one layer sees everything, and the rest read its cache.
        half = layers // 2
        odd = ["sliding" if i < half else "full" if i < half + 2 else "cross" for i in range(layers)]
        return [odd[i] if i % 2 else ("mamba" if i <= half else "mlp") for i in range(layers)]
    return []


def _windows(text: Mapping[str, Any], layers: int) -> list[LayerKind]:
    """Attention everywhere; which of it has a window."""
    if not window(text) or text.get("use_sliding_window") is False:
        return [FULL] * layers
    if "use_sliding_window" in text and integer(text, "max_window_layers"):
        # Qwen2: the first max_window_layers see everything.
        first = min(integer(text, "max_window_layers") or 0, layers)
        return [SLIDING if i >= first else FULL for i in range(layers)]
    rotated = numbers(text.get("no_rope_layers"))  # Llama 4: those with rotary positions see a chunk
    if rotated and integer(text, "attention_chunk_size"):
        return [SLIDING if flag else FULL for flag in rotated]
    pattern = integer(text, "sliding_window_pattern", "_sliding_window_pattern")
    if pattern is None and integer(text, "attention_chunk_size"):
        pattern = integer(text, "no_rope_layer_interval")
    if pattern:
        # Gemma and Cohere: every pattern-th layer sees everything.
        return [SLIDING if flag else FULL for flag in sliding_by_pattern(layers, pattern)]
    return [SLIDING] * layers
