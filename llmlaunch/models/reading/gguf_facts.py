"""What a GGUF header says about a model's shape.

Pure. The keys are ``<architecture>.<name>`` as llama.cpp's conversion writes them (gguf-py, constants.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmlaunch.errors import ModelError
from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.models.reading.config import sliding_layers_by_pattern
from llmlaunch.models.reading.gguf_header import FILE_TYPES, GgufHeader, Length

# llama.cpp knows these layers' windows by architecture when the file does not list them.
_SLIDING_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "gpt-oss": 2, "llama4": 4}
_EMBEDDERS = ("bert", "t5encoder")
_STATE_ONLY = ("mamba", "rwkv", "arwkv")
_PLAIN = ("F32", "F16", "BF16", "F64")
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def facts(headers: Sequence[GgufHeader], where: str) -> ModelFacts:
    """The facts of a GGUF model, whole or split; place and source are left to the caller. Raises ModelError."""
    metadata = headers[0].metadata
    architecture = str(metadata.get("general.architecture", ""))
    if architecture == "clip" or metadata.get("general.type") in ("mmproj", "adapter", "imatrix", "vocab"):
        raise ModelError(f"{where}: not a language model ({metadata.get('general.type', architecture)})")
    if not architecture:
        raise ModelError(f"{where}: its GGUF header does not name an architecture")
    keys = _Keys(metadata, architecture)
    largest = max(headers, key=lambda header: header.parameters)
    kv_heads = keys.each("attention.head_count_kv")
    layers, heads, hidden = (
        keys.number("block_count"),
        keys.number("attention.head_count"),
        keys.number("embedding_length"),
    )
    stateless = _stateless(keys, kv_heads, layers or 0)
    window, sliding = _sliding(keys, layers or 0)
    rank = keys.number("attention.kv_lora_rank")
    return ModelFacts(
        source="",
        path="",
        local=True,
        format="gguf",
        kind=_kind(keys),
        architecture=architecture,
        parameters=sum(header.parameters for header in headers),
        weight_bytes=sum(header.tensor_bytes for header in headers),
        dtype=_DTYPES.get(largest.dtype, largest.dtype),
        layers=layers,
        hidden_size=hidden,
        intermediate_size=keys.number("feed_forward_length"),
        attention_heads=heads,
        kv_heads=keys.number("attention.head_count_kv") or heads,
        head_dim=keys.number("attention.key_length") or (hidden // heads if hidden and heads else None),
        vocab_size=keys.number("vocab_size") or keys.length("tokenizer.ggml.tokens"),
        context_length=keys.number("context_length"),
        quantisation=_quantisation(metadata, largest.dtype),
        experts=keys.number("expert_count"),
        experts_per_token=keys.number("expert_used_count"),
        kv_lora_rank=rank,
        qk_rope_head_dim=keys.number("rope.dimension_count") if rank else None,
        sliding_window=window if sliding else None,
        sliding_layers=min(sliding, max((layers or 0) - stateless, 0)),
        stateless_layers=stateless,
    )


class _Keys:
    """Look-ups under the architecture's prefix; values of a wrong type count as absent."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self.metadata = metadata
        self.architecture = architecture

    def get(self, name: str) -> Any:
        return self.metadata.get(f"{self.architecture}.{name}")

    def number(self, name: str) -> int | None:
        """A positive whole number; of a list, one value a layer, the largest."""
        value = self.get(name)
        if isinstance(value, list):
            value = max((v for v in value if type(v) is int), default=None)
        return value if type(value) is int and 0 < value < 1 << 48 else None

    def each(self, name: str) -> list[int]:
        value = self.get(name)
        return [v for v in value if type(v) is int] if isinstance(value, list) else []

    def length(self, key: str) -> int | None:
        value = self.metadata.get(key)
        if isinstance(value, Length):
            return value.n
        return len(value) if isinstance(value, list) else None


def _quantisation(metadata: Mapping[str, Any], dtype: str) -> str:
    code = metadata.get("general.file_type")
    name = FILE_TYPES.get(code, dtype) if type(code) is int else dtype
    return "" if name in _PLAIN else name


def _kind(keys: _Keys) -> ModelKind:
    pooling = keys.get("pooling_type")  # llama.h, enum llama_pooling_type: 4 ranks, 1 to 3 embed
    if pooling == 4:
        return ModelKind.RERANK
    embeds = pooling in (1, 2, 3) or keys.architecture.endswith(_EMBEDDERS)
    return ModelKind.EMBED if embeds else ModelKind.GENERATE


def _stateless(keys: _Keys, kv_heads: list[int], layers: int) -> int:
    if keys.architecture.startswith(_STATE_ONLY):
        return layers
    interval = keys.number("full_attention_interval")
    if interval:
        return layers - layers // interval
    return sum(n == 0 for n in kv_heads)


def _sliding(keys: _Keys, layers: int) -> tuple[int | None, int]:
    window = keys.number("attention.sliding_window")
    if not window:
        return None, 0
    pattern = keys.get("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        return window, sum(bool(flag) for flag in pattern[:layers])
    period = pattern if type(pattern) is int else _SLIDING_PATTERNS.get(keys.architecture)
    return window, sliding_layers_by_pattern(layers, period) if period else layers
