"""The KV cache of a model, layer by layer. All sizes are bytes per GPU unless a name says otherwise.

::

    layer, token = heads · (key + value) · bytes, heads = ceil(KV heads / GPUs);  MLA: latent · bytes, whole on every GPU
    layer        = all tokens of all sequences, or those in the window, or a state a sequence, or nothing

With layers split over GPUs each has its share of the sum. A window's layers keep what the engine allocates for them
(:class:`llmlaunch.engines.types.Windows`): vLLM a batch beside the windows of all sequences (``SlidingWindowSpec``),
llama.cpp a physical batch beside each, in steps of 256 (``llama-kv-cache-iswa.cpp``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmlaunch.engines import registry
from llmlaunch.engines.types import Engine, MemoryRule, Windows
from llmlaunch.manifest.types import ModelSpec
from llmlaunch.models.facts import LayerCache, LayerKind, ModelFacts, ModelKind

_WHOLE_WINDOWS = ("swa-full", "disable-hybrid-kv-cache-manager", "disable-hybrid-swa-memory")
"""Flags of llama.cpp, vLLM and SGLang that give layers with a window room for the whole context."""
_DTYPES_8_BIT = ("fp8", "int8", "e4m3", "e5m2")
# llama.cpp's --cache-type-k and -v: bits an element, scales included.
_CACHE_TYPES = {
    "f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q5_1": 6.0, "q5_0": 5.5, "q4_1": 5.0, "q4_0": 4.5, "iq4_nl": 4.5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Bytes:
    """Bytes of one element."""

    key: float
    value: float


@dataclass(frozen=True, slots=True)
class Room:
    """Sequences and the tokens of each that a cache is made for, and how many sequences may run at a time."""

    sequences: int
    tokens: int
    running: int


def bytes_per_token(
    model: ModelSpec, facts: ModelFacts, engine: Engine, count: int
) -> tuple[int, int] | None:
    """Bytes per token and GPU in layers that keep everything, and in sliding layers; None when the shape is unknown."""
    if not facts.layer_caches:
        return None
    size = _element_bytes(model, facts)
    sums = {LayerKind.FULL: 0.0, LayerKind.SLIDING: 0.0}
    for layer in facts.layer_caches:
        if layer.kind in sums:
            sums[layer.kind] += _token_bytes(layer, engine.memory, size, count)
    split = count if engine.memory.layer_split else 1
    return math.ceil(sums[LayerKind.FULL] / split), math.ceil(sums[LayerKind.SLIDING] / split)


def state_bytes(facts: ModelFacts, count: int) -> int:
    """Bytes per sequence and GPU that do not grow with its tokens."""
    return -(-sum(layer.count * layer.state_bytes for layer in facts.layer_caches) // count)


def cache_bytes(model: ModelSpec, facts: ModelFacts, engine: Engine, count: int, room: Room) -> int | None:
    """Bytes per GPU of a cache with ``room``; None when the shape is unknown. Embedding models have none."""
    if facts.kind is not ModelKind.GENERATE:
        return 0
    if not facts.layer_caches:
        return None
    rule, size = engine.memory, _element_bytes(model, facts)
    total = 0.0
    for layer in facts.layer_caches:
        if layer.kind in (LayerKind.FULL, LayerKind.SLIDING):
            total += _token_bytes(layer, rule, size, count) * _tokens(layer, model, rule, room)
    split = count if rule.layer_split else 1
    return math.ceil(total / split) + room.running * state_bytes(facts, count)


def _token_bytes(layer: LayerCache, rule: MemoryRule, size: _Bytes, count: int) -> float:
    """Of all layers in the run together, before layers are split over GPUs."""
    if layer.kind is LayerKind.SLIDING and rule.windows is Windows.EACH:
        # llama.cpp does not quantise windows (ggml-org/llama.cpp#21277).
        size = _Bytes(max(size.key, 2), max(size.value, 2))
    if layer.latent and not rule.expands_mla:
        one = layer.latent * size.key
    else:
        heads = layer.kv_heads if rule.layer_split else -(-layer.kv_heads // count)
        one = heads * (layer.key_dim * size.key + layer.value_dim * size.value)
    return layer.count * (one + layer.index_bytes) / layer.stride


def _tokens(layer: LayerCache, model: ModelSpec, rule: MemoryRule, room: Room) -> int:
    """Tokens of all sequences that a layer has room for."""
    everything = room.sequences * room.tokens
    if layer.kind is LayerKind.FULL or layer.window is None or rule.windows is Windows.WHOLE:
        return everything
    if registry.given(model, *_WHOLE_WINDOWS) is True:
        return everything
    if rule.windows is Windows.POOLED:
        return min(everything, room.sequences * layer.window + rule.batch_tokens)
    each = -(-(layer.window + rule.batch_tokens) // 256) * 256
    return room.sequences * min(room.tokens, each)


def _element_bytes(model: ModelSpec, facts: ModelFacts) -> _Bytes:
    kinds = [registry.given(model, "cache-type-k"), registry.given(model, "cache-type-v")]
    if any(kinds):
        key, value = (_CACHE_TYPES.get(str(kind).lower(), 16.0) / 8 for kind in kinds)
        return _Bytes(key, value)
    asked = registry.given(model, "kv-cache-dtype")
    if isinstance(asked, str) and asked.lower().startswith(_DTYPES_8_BIT):
        return _Bytes(1, 1)
    dtype = model.dtype if model.dtype != "auto" else facts.dtype
    size = 4 if dtype == "float32" and model.engine == "transformers" else 2
    return _Bytes(size, size)
