"""Mistral's own format: params.json, consolidated*.safetensors and tekken.json, which vLLM serves beside Hugging Face's.

Pure. The names follow mistral-inference's ``TransformerArgs`` and vLLM's reading of them
(``vllm/transformers_utils/configs/mistral.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlaunch.models.reading.values import integer, mapping

FILE = "params.json"
_NAMES = {
    "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size", "max_seq_len": "max_position_embeddings",
}  # fmt: skip
_CONTEXT = 128_000
"""vLLM's, when the file does not say."""


def as_config(params: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` in the words of config.json."""
    text = mapping(params.get("text_config")) or params
    config = {_NAMES.get(key, key): value for key, value in text.items() if _NAMES.get(key) not in text}
    experts = mapping(text.get("moe"))
    if experts:
        config["num_local_experts"] = integer(experts, "num_experts")
        config["num_experts_per_tok"] = integer(experts, "num_experts_per_tok")
    config.setdefault("max_position_embeddings", integer(text, "seq_len", "model_max_length") or _CONTEXT)
    windows = text.get("sliding_window", text.get("_sliding_window"))
    if isinstance(windows, list):  # one a layer, repeated: null sees everything
        layers = integer(config, "num_hidden_layers") or 0
        seen = [windows[i % len(windows)] for i in range(min(layers, 4096))] if windows else []
        config["layer_types"] = [
            "sliding_attention" if type(size) is int else "full_attention" for size in seen
        ]
        config["sliding_window"] = integer({"sizes": windows}, "sizes")
    scale = mapping(text.get("quantization")).get("qformat_weight")
    if isinstance(scale, str):
        config["quantization_config"] = {"quant_method": scale.partition("_")[0]}
    config["architectures"] = [_architecture(params, bool(experts))]
    return config


def _architecture(params: Mapping[str, Any], mixture: bool) -> str:
    """What vLLM calls it."""
    if params.get("vision_encoder") or params.get("multimodal"):
        return "PixtralForConditionalGeneration"
    return "MixtralForCausalLM" if mixture else "MistralForCausalLM"
