"""What each layer of a model keeps of a sequence, from config.json.

Pure. Most models say one geometry for all layers; others one for layers with a window and another for those without
(Gemma 4, MiMo-V2), one a layer (DeciLM, Nemotron-NAS, OpenELM), or that layers read another's cache (Gemma 3n, Hunyuan).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from llmlaunch.models.facts import LayerCache, LayerKind
from llmlaunch.models.reading.layer_kinds import BOTH, BOTH_SLIDING, kinds, listed_names, window
from llmlaunch.models.reading.layer_state import state_bytes
from llmlaunch.models.reading.values import integer, mapping, numbers

MAX_LAYERS = 100_000
_KV_HEADS = (
    "num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_head_kv", "multi_query_group_num", "num_query_groups",
    "num_attention_groups", "num_key_value_heads_per_layer", "kv_n_heads",
)  # fmt: skip
_HEADS = (
    "num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "attention_heads",
    "num_query_heads",
)  # fmt: skip
_WHOLE_KEYS = {"minicpm3"}
"""Families with a latent that no engine keeps: their keys and values are cached whole."""


def attention_heads(text: Mapping[str, Any]) -> int | None:
    """Heads that ask, of the layer that has most."""
    return integer(text, *_HEADS)


def layer_caches(text: Mapping[str, Any]) -> tuple[LayerCache, ...]:
    """What the layers keep, equal neighbours together; empty when the config does not tell."""
    layers = number_of_layers(text)
    if not layers:
        return ()
    found = [_layer(text, index, kind) for index, kind in enumerate(kinds(text, layers))]
    attending = (LayerKind.FULL, LayerKind.SLIDING)
    if any(
        layer.kind in attending and not (layer.latent or layer.kv_heads * layer.key_dim) for layer in found
    ):
        return ()
    for index in _readers_of_others(text, layers):
        if found[index].kind in attending:
            found[index] = LayerCache(1, LayerKind.SHARED, state_bytes=found[index].state_bytes)
    return runs(found)


def number_of_layers(text: Mapping[str, Any]) -> int | None:
    """Layers that attend or keep a state; of a model with an encoder, the decoder's."""
    layers = integer(
        text, "num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_decoder_layers", "decoder_layers", "layers",
        "num_transformer_layers",
    ) or len(listed_names(text))  # fmt: skip
    if not 0 < layers <= MAX_LAYERS:
        return None
    # LongCat-Flash has two attentions in each of its layers.
    return 2 * layers if text.get("model_type") == "longcat_flash" else layers


def runs(layers: list[LayerCache]) -> tuple[LayerCache, ...]:
    """Equal neighbours as one entry."""
    return tuple(replace(first, count=sum(1 for _ in group)) for first, group in groupby(layers))


def _layer(text: Mapping[str, Any], index: int, kind: LayerKind | str) -> LayerCache:
    own = _own(text, index)
    if own.get("no_op") or own.get("replace_with_linear"):
        return LayerCache(1, LayerKind.NONE)
    if kind is LayerKind.NONE:
        return LayerCache(1, LayerKind.NONE)
    state = state_bytes(text) if kind in (LayerKind.STATE, BOTH, BOTH_SLIDING) else 0
    if kind is LayerKind.STATE:
        return LayerCache(1, LayerKind.STATE, state_bytes=state)
    if kind in (BOTH, BOTH_SLIDING):
        kind = LayerKind.FULL if kind == BOTH else LayerKind.SLIDING
    if "window_length" in own and integer(own, "window_length"):  # Nemotron-NAS
        kind, own["sliding_window"] = LayerKind.SLIDING, own["window_length"]
    said = {**text, **own}
    compressed = _compressed(said, index, kind)
    if compressed:
        return compressed
    found = _attention(said, index, sliding=kind is LayerKind.SLIDING)
    kept = window(said) if kind is LayerKind.SLIDING else None
    return replace(found, kind=LayerKind(kind), window=kept, state_bytes=state)


def _own(text: Mapping[str, Any], index: int) -> dict[str, Any]:
    """What the config says about this layer alone: block_configs of Nemotron-NAS, per_layer_config of transformers."""
    blocks = text.get("block_configs")
    if isinstance(blocks, list) and index < len(blocks):
        found = dict(mapping(mapping(blocks[index]).get("attention")))
        group, heads = integer(found, "n_heads_in_group"), attention_heads(text)
        if group and heads:
            found.setdefault("num_key_value_heads", heads // group)
        return found
    per_layer = mapping(text.get("per_layer_config"))
    return dict(mapping(per_layer.get(str(index), per_layer.get(index))))  # type: ignore[call-overload]


def _at(text: Mapping[str, Any], index: int, *keys: str) -> int | None:
    """The value for this layer: of a list its entry, else the one for all."""
    for key in keys:
        value = text.get(key)
        if isinstance(value, list):
            value = value[index] if index < len(value) else None
        if type(value) is int and 0 < value < 1 << 32:
            return value
    return None


def _attention(text: Mapping[str, Any], index: int, *, sliding: bool) -> LayerCache:
    heads = _at(text, index, *_HEADS)
    rank = integer(text, "kv_lora_rank")
    rotated = integer(text, "qk_rope_head_dim")
    if rank and heads:
        key = (integer(text, "qk_nope_head_dim") or 128) + (rotated or 0)
        value = integer(text, "v_head_dim") or integer(text, "qk_nope_head_dim") or 128
        latent = 0 if text.get("model_type") in _WHOLE_KEYS else rank + (rotated or 0)
        return LayerCache(
            1,
            kv_heads=heads,
            key_dim=key,
            value_dim=value,
            latent=latent,
            index_bytes=_index_bytes(text, index),
        )
    hidden = integer(text, "hidden_size", "n_embd", "d_model", "dim", "model_dim", "embed_dim")
    dim = _at(text, index, "head_dim", "attention_head_dim", "kv_channels", "d_kv", "head_size") or (
        hidden // heads if hidden and heads else 0
    )
    value = _at(text, index, "v_head_dim") or dim
    kv = _kv_heads(text, index, heads) or 0
    if sliding:
        other = mapping(text.get("attention_other_setting"))  # Step 3.5
        kv = integer(text, "swa_num_key_value_heads") or integer(other, "num_attention_groups") or kv
        dim, value = (
            integer(text, "swa_head_dim") or dim,
            integer(text, "swa_v_head_dim", "swa_head_dim") or value,
        )
    else:
        dim, value = (integer(text, "global_head_dim") or size for size in (dim, value))
        if text.get("attention_k_eq_v") is not False:  # Gemma 4 says it only where keys serve as values
            kv = integer(text, "num_global_key_value_heads") or kv
    return LayerCache(1, kv_heads=kv, key_dim=dim, value_dim=value, index_bytes=_index_bytes(text, index))


def _kv_heads(text: Mapping[str, Any], index: int, heads: int | None) -> int | None:
    """Grouped-query attention under its names: Falcon and StarCoder share one head, ChatGLM counts groups."""
    if text.get("model_type") == "falcon" and not text.get("new_decoder_architecture"):
        return 1 if text.get("multi_query", True) else heads
    if text.get("model_type") == "chatglm" and not text.get("multi_query_attention"):
        return heads
    found = _at(text, index, *_KV_HEADS) or integer(mapping(text.get("attn_config")), "kv_n_heads")
    if found is None and text.get("multi_query"):
        return 1
    return found or heads


def _index_bytes(text: Mapping[str, Any], index: int) -> int:
    """Keys of the indexer of sparse attention (DeepSeek V3.2, GLM-5): 8 bits each, and a 32-bit scale for every 128."""
    dim = integer(text, "index_head_dim")
    modes = text.get("indexer_types")
    if not dim or (isinstance(modes, list) and index < len(modes) and modes[index] == "shared"):
        return 0
    return dim + -(-dim // 128) * 4


def _compressed(text: Mapping[str, Any], index: int, kind: LayerKind | str) -> LayerCache | None:
    """DeepSeek V4: beside a window, one entry for so many tokens; keys serve as values."""
    ratios, dim = text.get("compress_ratios"), integer(text, "head_dim")
    if not dim or not (isinstance(ratios, list) or text.get("model_type") == "deepseek_v4"):
        return None
    rate = _at(text, index, "compress_ratios")
    names = listed_names(text)
    if names and not isinstance(ratios, list):
        rates = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
        rates |= {
            name: size for name, size in mapping(text.get("compress_rates")).items() if type(size) is int
        }
        rate = rates.get(names[index]) if index < len(names) else None
    near = window(text) or 128
    one = LayerCache(1, LayerKind.SLIDING, kv_heads=1, key_dim=dim, value_dim=dim, window=near, latent=dim)
    if not rate or rate < 1:
        return one
    # Only the finer of the two rates is searched by an indexer.
    searched = _index_bytes(text, index) if rate <= 16 else 0
    return replace(
        one, kind=LayerKind.FULL, window=None, stride=rate, index_bytes=searched, state_bytes=near * dim * 2
    )


def _readers_of_others(text: Mapping[str, Any], layers: int) -> Iterator[int]:
    """Layers that read the cache of another."""
    last = integer(text, "num_kv_shared_layers", "num_kv_reuse_layers")  # Gemma 3n and 4
    own = integer(text, "num_key_value_layers")  # MLKV
    if last or own:
        yield from range(max(layers - last if last else min(own or 0, layers), 0), layers)
    factor = integer(text, "cla_share_factor")
    if factor and text.get("use_cla", True):  # Hunyuan-Large: neighbours share
        yield from (index for index in range(layers) if index % factor)
    sources = numbers(text.get("kv_source_layers"))  # Mistral Large 4
    yield from (index for index, source in enumerate(sources[:layers]) if index != source)
    groups = text.get("kv_reuse_group")  # Hymba
    for group in groups if isinstance(groups, list) else ():
        yield from (index for index in numbers(group)[1:] if 0 <= index < layers)
