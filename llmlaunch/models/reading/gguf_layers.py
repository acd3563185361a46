"""What each layer of a model keeps of a sequence, from a GGUF header.

Pure. The sizes are what llama.cpp allocates (llama-hparams.cpp, llama-kv-cache.cpp, llama-memory-recurrent.cpp); a window counts
only where it reads one: in files that say which layers have it, or in the architectures below.
"""

from __future__ import annotations

from dataclasses import replace

from llmlaunch.models.facts import LayerCache, LayerKind
from llmlaunch.models.reading.gguf_keys import GgufKeys
from llmlaunch.models.reading.layer_kinds import sliding_by_pattern
from llmlaunch.models.reading.layers import MAX_LAYERS, runs
from llmlaunch.models.reading.values import numbers

# llama.cpp knows these layers' windows by architecture when the file does not list them.
_SLIDING_PATTERNS = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gemma-embedding": 6, "cohere2": 4, "gpt-oss": 2, "llama4": 4, "exaone4": 4,
    "exaone-moe": 4, "olmo2": 4, "afmoe": 4,
}  # fmt: skip
_CHUNK = {"llama4": 8192}
"""Windows that the file does not tell."""
_STATE_ONLY = ("mamba", "rwkv", "arwkv")
_BOTH = ("falcon-h1",)
_FEED_FORWARD_APART = ("nemotron_h", "nemotron_h_moe")
"""Architectures whose layers attend, keep a state or feed forward, one of the three."""


def layer_caches(keys: GgufKeys) -> tuple[LayerCache, ...]:
    """What the layers keep, equal neighbours together; empty when the header does not tell."""
    layers = keys.number("block_count")
    if not layers or layers > MAX_LAYERS:
        return ()
    windows = _windows(keys, layers)
    found = [_layer(keys, index, windows[index]) for index in range(layers)]
    attending = (LayerKind.FULL, LayerKind.SLIDING)
    if any(layer.kind in attending and not layer.kv_heads * layer.key_dim for layer in found):
        return ()
    own = layers - _shared(keys, layers)
    last = layers - (keys.number("nextn_predict_layers") or 0)
    for index, layer in enumerate(found):
        if index >= last:  # they predict further tokens, and run only when asked to
            found[index] = LayerCache(1, LayerKind.NONE)
        elif index >= own and layer.kind in attending:
            found[index] = LayerCache(1, LayerKind.SHARED)
    return runs(found)


def _shared(keys: GgufKeys, layers: int) -> int:
    """Layers at the end that read the cache of earlier ones."""
    said = keys.number("attention.shared_kv_layers")
    # llama.cpp writes the number for Gemma 4; for Gemma 3n it is part of its code.
    return said or (max(layers - 20, 0) if keys.architecture == "gemma3n" else 0)


def _layer(keys: GgufKeys, index: int, window: int | None) -> LayerCache:
    heads = keys.at("attention.head_count", index)
    kv = keys.at("attention.head_count_kv", index)
    kv = heads if kv is None else kv
    if keys.architecture.startswith(_STATE_ONLY):
        return LayerCache(1, LayerKind.STATE, state_bytes=_state(keys))
    interval = keys.number("full_attention_interval")
    if (interval and (index + 1) % interval) or kv == 0 or heads == 0:
        state = 0 if _feeds_forward(keys, index) else _state(keys)
        return LayerCache(1, LayerKind.STATE if state else LayerKind.NONE, state_bytes=state)
    found = _attention(keys, heads or 0, kv or 0, windowed=window is not None)
    kind = LayerKind.FULL if window is None else LayerKind.SLIDING
    state = _state(keys) if keys.architecture in _BOTH else 0
    return replace(found, kind=kind, window=window, state_bytes=state)


def _attention(keys: GgufKeys, heads: int, kv: int, *, windowed: bool) -> LayerCache:
    hidden = keys.number("embedding_length")
    head = hidden // heads if hidden and heads else 0
    key, value = keys.number("attention.key_length") or head, keys.number("attention.value_length") or head
    if windowed:
        key = keys.number("attention.key_length_swa") or key
        value = keys.number("attention.value_length_swa") or value
    rank, whole = keys.number("attention.kv_lora_rank"), keys.number("attention.key_length_mla")
    if rank and whole:
        # The file is made for the latent: key_length is its size with the rotated part.
        return LayerCache(
            1,
            kv_heads=heads,
            key_dim=whole,
            value_dim=keys.number("attention.value_length_mla") or whole,
            latent=key,
        )
    return LayerCache(1, kv_heads=kv, key_dim=key, value_dim=value)


def _feeds_forward(keys: GgufKeys, index: int) -> bool:
    return keys.architecture in _FEED_FORWARD_APART and bool(keys.at("feed_forward_length", index))


def _state(keys: GgufKeys) -> int:
    """Bytes of a layer's state per sequence: llama.cpp keeps it in 32 bits."""
    hidden = keys.number("embedding_length") or 0
    if head := keys.number("wkv.head_size"):
        shifts = 1 if keys.architecture.startswith("arwkv") else keys.number("token_shift_count") or 2
        return 4 * (shifts * hidden + hidden * head)
    if length := keys.number("shortconv.l_cache"):
        return 4 * hidden * (length - 1)
    kernel = keys.number("ssm.conv_kernel") or 0
    if dim := keys.number("kda.head_dim"):
        heads = max(keys.numbers("attention.head_count"), default=0)
        return 4 * (3 * max(kernel - 1, 0) * heads * dim + heads * dim * dim)
    inner, size = keys.number("ssm.inner_size") or 0, keys.number("ssm.state_size") or 0
    groups = keys.number("ssm.group_count") or 0
    return 4 * (max(kernel - 1, 0) * (inner + 2 * groups * size) + inner * size)


def _windows(keys: GgufKeys, layers: int) -> list[int | None]:
    """The window of each layer, None where it sees everything."""
    window = keys.number("attention.sliding_window") or _CHUNK.get(keys.architecture)
    said = keys.get("attention.sliding_window_pattern")
    if not window:
        return [None] * layers
    flags = [bool(flag) for flag in numbers(said)]
    if not flags:
        period = said if type(said) is int else _SLIDING_PATTERNS.get(keys.architecture)
        flags = sliding_by_pattern(layers, period) if period else []
    flags = flags[:layers] + [False] * (layers - len(flags))
    return [window if flag else None for flag in flags]
