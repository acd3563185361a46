"""What config.json says about a model's shape, under the many names that architectures use.

Pure: a dictionary in, values out. The rules follow the configuration classes of transformers and vLLM's
``ModelConfig``; docs in the functions name the cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmlaunch.models.facts import LayerCache, ModelKind
from llmlaunch.models.reading.layers import attention_heads, layer_caches, number_of_layers
from llmlaunch.models.reading.values import integer, names

_NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "vlm_config", "decoder")
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
    "gemma3n_text": {
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "num_kv_shared_layers": 15,
        "sliding_window": 512, "sliding_window_pattern": 5,
    },
    "gemma4_text": {"head_dim": 256, "global_head_dim": 512, "sliding_window": 512, "sliding_window_pattern": 6},
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
    vocab_size: int | None = None
    context_length: int | None = None
    quantisation: str = ""
    experts: int | None = None
    experts_per_token: int | None = None
    layer_caches: tuple[LayerCache, ...] = ()
    draft_layers: int = 0
    remote_code: bool = False


def shape(config: Mapping[str, Any]) -> ModelShape:
    """Read one config.json. Values of a wrong type count as absent; nothing raises."""
    text = _text(config)
    hidden = integer(text, "hidden_size", "n_embd", "d_model", "dim", "model_dim", "embed_dim")
    architectures = names(config.get("architectures")) or names(text.get("architectures"))
    return ModelShape(
        kind=_kind(architectures, config),
        architecture=architectures[0] if architectures else str(config.get("model_type") or ""),
        dtype=_dtype(config, text),
        layers=number_of_layers(text),
        hidden_size=hidden,
        intermediate_size=integer(text, "intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size")
        or (4 * hidden if hidden else None),
        attention_heads=attention_heads(text),
        vocab_size=integer(text, "vocab_size", "padded_vocab_size") or integer(config, "vocab_size"),
        context_length=_context(text),
        quantisation=quantisation_name(quantisation(config)),
        experts=integer(
            text, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts"
        ),
        experts_per_token=integer(
            text, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"
        ),
        layer_caches=layer_caches(text),
        draft_layers=integer(
            text, "num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers", "mtp_num_layers"
        )
        or 0,
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
        if inner is None or integer(config, "num_hidden_layers"):
            break
        config = inner
    return {**_DEFAULTS.get(str(config.get("model_type")), {}), **config}


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    for place in (config, text):
        for key in ("dtype", "torch_dtype"):
            if isinstance(place.get(key), str):
                return str(place[key]).removeprefix("torch.")
    return ""


def _context(text: Mapping[str, Any]) -> int | None:
    declared = integer(
        text, "max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len", "max_sequence_length"
    )  # fmt: skip
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if declared and isinstance(scaling, dict):
        original, factor = integer(scaling, "original_max_position_embeddings"), scaling.get("factor")
        kind = scaling.get("rope_type") or scaling.get("type")
        if kind == "yarn" and original and isinstance(factor, int | float):
            return max(declared, int(min(original * factor, 1 << 40)))
    return declared


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
