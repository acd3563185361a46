"""What config.json says about a model's shape, under the many names that architectures use.

Pure: a dictionary in, values out. The rules follow the configuration classes of transformers and vLLM's
``ModelConfig``; docs in the functions name the cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmlaunch.models.facts import ModelKind

_NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
# What the configuration classes of transformers fill in when a published config.json leaves it out.
_LLAMA = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "vocab_size": 32000, "max_position_embeddings": 2048,
}  # fmt: skip
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 256},
    "gemma2": {"head_dim": 256, "sliding_window_pattern": 2},
    "gemma3_text": {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208, "max_position_embeddings": 131072,
        "sliding_window_pattern": 6,
    },
    "cohere2": {"sliding_window_pattern": 4},
    "llama4_text": {"sliding_window_pattern": 4},
    "llama": _LLAMA,
    "mistral": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 131072,
    },
    "qwen2": {
        "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
        "vocab_size": 151936, "max_position_embeddings": 32768,
    },
    "gpt2": {
        "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257,
    },
}  # fmt: skip
_FULL = {"full_attention", "attention", "hybrid", "full", "parallel_hybrid", "global_attention", "global"}
_WINDOWED = {"sliding_attention", "chunked_attention", "local_attention", "sliding", "local"}
_STATE_ONLY = {"mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv5", "rwkv6", "rwkv7", "xlstm"}
_MAX_LAYERS = 100_000
_ENCODERS = ("Model", "ForMaskedLM", "EncoderModel")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The fields of ModelFacts that config.json tells; the names mean the same there."""

    kind: ModelKind = ModelKind.GENERATE
    architecture: str = ""
    dtype: str = ""
    layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    attention_heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int | None = None
    context_length: int | None = None
    quantisation: str = ""
    experts: int | None = None
    experts_per_token: int | None = None
    kv_lora_rank: int | None = None
    qk_rope_head_dim: int | None = None
    sliding_window: int | None = None
    sliding_layers: int = 0
    stateless_layers: int = 0
    remote_code: bool = False


def shape(config: Mapping[str, Any]) -> ModelShape:
    """Read one config.json. Values of a wrong type count as absent; nothing raises."""
    text = _text(config)
    layers = _layers(text)
    hidden = _int(text, "hidden_size", "n_embd", "d_model", "dim", "model_dim", "embed_dim")
    heads = _int(
        text, "num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "attention_heads"
    )  # fmt: skip
    stateless = _stateless(text, layers or 0)
    window, sliding = _sliding(text, layers or 0)
    architectures = _names(config.get("architectures")) or _names(text.get("architectures"))
    return ModelShape(
        kind=_kind(architectures, config),
        architecture=architectures[0] if architectures else str(config.get("model_type") or ""),
        dtype=_dtype(config, text),
        layers=layers,
        hidden_size=hidden,
        intermediate_size=_int(text, "intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size")
        or (4 * hidden if hidden else None),
        attention_heads=heads,
        kv_heads=_kv_heads(text, heads),
        head_dim=_int(text, "head_dim", "attention_head_dim", "kv_channels", "d_kv")
        or (hidden // heads if hidden and heads else None),
        vocab_size=_int(text, "vocab_size", "padded_vocab_size") or _int(config, "vocab_size"),
        context_length=_context(text),
        quantisation=quantisation_name(quantisation(config)),
        experts=_int(
            text, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts"
        ),
        experts_per_token=_int(
            text, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"
        ),
        kv_lora_rank=_int(text, "kv_lora_rank"),
        qk_rope_head_dim=_int(text, "qk_rope_head_dim"),
        sliding_window=window if sliding else None,
        sliding_layers=min(sliding, max((layers or 0) - stateless, 0)),
        stateless_layers=stateless,
        remote_code=bool(config.get("auto_map")),
    )


def quantisation(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json's description of how the weights are packed; empty when they are not."""
    for place in (config, _text(config)):
        for key in ("quantization_config", "compression_config"):
            value = place.get(key)
            if isinstance(value, dict):
                return value
    return {}


def quantisation_name(value: Mapping[str, Any]) -> str:
    """``quantization_config`` as one word: gptq, awq, bitsandbytes-4bit …; empty when it names no method."""
    method = str(value.get("quant_method") or value.get("quant_algo") or "").lower()
    if method in ("", "bitsandbytes") and (value.get("load_in_4bit") or value.get("_load_in_4bit")):
        return "bitsandbytes-4bit"
    if method in ("", "bitsandbytes") and (value.get("load_in_8bit") or value.get("_load_in_8bit")):
        return "bitsandbytes-8bit"
    return method


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's own part of a multimodal config, with the defaults of its class underneath."""
    for _ in range(3):
        inner = next((config[key] for key in _NESTED if isinstance(config.get(key), dict)), None)
        if inner is None or _int(config, "num_hidden_layers"):
            break
        config = inner
    return {**_DEFAULTS.get(str(config.get("model_type")), {}), **config}


def _int(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first positive whole number under these keys; of a list (one value a layer) the largest."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, list):
            value = max((v for v in value if type(v) is int), default=None)
        if type(value) is int and 0 < value < 1 << 48:
            return value
    return None


def _layers(text: Mapping[str, Any]) -> int | None:
    """Layers that attend or keep a state; of a model with an encoder, the decoder's."""
    layers = _int(
        text, "num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_decoder_layers", "decoder_layers", "layers"
    )  # fmt: skip
    if layers is None:
        layers = len(_layer_types(text, 0)) or None
    if layers and layers > _MAX_LAYERS:
        return None
    # LongCat-Flash has two attentions in each of its layers.
    return 2 * layers if layers and text.get("model_type") == "longcat_flash" else layers


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    for place in (config, text):
        for key in ("dtype", "torch_dtype"):
            if isinstance(place.get(key), str):
                return str(place[key]).removeprefix("torch.")
    return ""


def _kv_heads(text: Mapping[str, Any], heads: int | None) -> int | None:
    """Grouped-query attention under its names: Falcon and StarCoder share one head, ChatGLM counts groups."""
    nested = text.get("attn_config")
    found = _int(
        text, "num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_head_kv", "multi_query_group_num", "num_query_groups"
    ) or (_int(nested, "kv_n_heads") if isinstance(nested, dict) else None)  # fmt: skip
    if text.get("model_type") == "falcon" and not text.get("new_decoder_architecture"):
        return 1 if text.get("multi_query", True) else heads
    if text.get("model_type") == "chatglm" and not text.get("multi_query_attention"):
        return heads
    if found is None and text.get("multi_query"):
        return 1
    return found or heads


def _context(text: Mapping[str, Any]) -> int | None:
    declared = _int(
        text, "max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len", "max_sequence_length"
    )  # fmt: skip
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if declared and isinstance(scaling, dict):
        original, factor = _int(scaling, "original_max_position_embeddings"), scaling.get("factor")
        kind = scaling.get("rope_type") or scaling.get("type")
        if kind == "yarn" and original and isinstance(factor, int | float):
            return max(declared, int(min(original * factor, 1 << 40)))
    return declared


def _layer_types(text: Mapping[str, Any], layers: int) -> list[str]:
    """One name a layer, however the config says it; empty when it does not."""
    for key in ("layer_types", "layers_block_type"):
        names = _names(text.get(key))
        if names:
            return names
    pattern = text.get("hybrid_override_pattern")  # Nemotron-H: M Mamba, * attention, - and E feed-forward
    if isinstance(pattern, str) and pattern:
        return ["full_attention" if mark == "*" else "mamba" for mark in pattern]
    pattern = text.get("sliding_window_pattern")  # EXAONE 4: "LLLG", local and global, repeated
    if isinstance(pattern, str) and pattern:
        marks = (pattern[i % len(pattern)] for i in range(layers))
        return ["sliding_attention" if mark == "L" else "full_attention" for mark in marks]
    blocks = _names(text.get("block_types"))  # RecurrentGemma repeats its pattern; its attention is windowed
    if blocks:
        local = "sliding_attention" if _int(text, "attention_window_size") else "full_attention"
        return [local if blocks[i % len(blocks)] == "attention" else "recurrent" for i in range(layers)]
    return _attention_at(text, layers)


def _attention_at(text: Mapping[str, Any], layers: int) -> list[str]:
    """Hybrids that say which layers attend: by list (Bamba, LFM2, MiniMax) or by period (Jamba, Qwen3-Next)."""
    for key in ("attn_layer_indices", "full_attn_idxs"):
        value = text.get(key)
        if isinstance(value, list):
            return ["full_attention" if i in value else "mamba" for i in range(layers)]
    flags = text.get("attn_type_list")
    if isinstance(flags, list) and flags:
        return ["full_attention" if flag == 1 else "linear_attention" for flag in flags]
    period = _int(text, "attn_layer_period")
    if period:
        offset = text.get("attn_layer_offset") or 0
        return ["full_attention" if i % period == offset else "mamba" for i in range(layers)]
    interval = _int(text, "full_attention_interval")
    if interval:
        return ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(layers)]
    return []


def _stateless(text: Mapping[str, Any], layers: int) -> int:
    """Layers whose state does not grow with the text: everything that is neither full nor windowed attention."""
    types = _layer_types(text, layers)
    if types:
        return sum(name not in _FULL | _WINDOWED for name in types[:layers])
    return layers if str(text.get("model_type")) in _STATE_ONLY else 0


def _sliding(text: Mapping[str, Any], layers: int) -> tuple[int | None, int]:
    """The window and how many layers keep only it."""
    window = _int(text, "sliding_window", "attention_chunk_size", "attention_window_size", "window_size")
    types = _layer_types(text, layers)
    if types:
        count = sum(name in _WINDOWED for name in types[:layers])
        return (window, count) if window else (None, 0)
    if not window or text.get("use_sliding_window") is False:
        return None, 0
    if "use_sliding_window" in text and _int(text, "max_window_layers"):
        # Qwen2: the first max_window_layers see everything.
        return window, max(layers - (_int(text, "max_window_layers") or 0), 0)
    pattern = _int(text, "sliding_window_pattern", "_sliding_window_pattern")
    if pattern:
        # Gemma and Cohere: every pattern-th layer sees everything.
        return window, sliding_layers_by_pattern(layers, pattern)
    return window, layers


def _kind(architectures: Sequence[str], config: Mapping[str, Any]) -> ModelKind:
    """A base model without a head embeds, unless its own code adds one (ChatGLMModel); a classifier ranks."""
    name = architectures[0] if architectures else ""
    if name.endswith("ForSequenceClassification"):
        return ModelKind.RERANK
    auto = config.get("auto_map")
    if isinstance(auto, dict) and ("AutoModelForCausalLM" in auto or "AutoModelForSeq2SeqLM" in auto):
        return ModelKind.GENERATE
    if name.endswith(_ENCODERS) and not name.endswith("LMHeadModel"):
        return ModelKind.EMBED
    return ModelKind.GENERATE


def sliding_layers_by_pattern(layers: int, pattern: int) -> int:
    """Layers with a window when every ``pattern``-th sees everything (Gemma 2: 2, Gemma 3: 6)."""
    return layers - layers // pattern if pattern > 0 else layers
