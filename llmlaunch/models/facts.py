"""What a model needs, as read from its files' headers: no weights loaded, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class ModelKind(StrEnum):
    """What a model answers with: text, vectors, or a score for each document."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Sizes in bytes, lengths in tokens. Fields that the files do not tell are None."""

    source: str
    """What the manifest said."""
    path: str
    """Where it was found: an absolute path, or the hub id when it is not downloaded yet."""
    local: bool
    """Whether ``path`` exists on this machine."""
    format: str
    """safetensors | gguf | pytorch | unknown"""
    kind: ModelKind = ModelKind.GENERATE
    architecture: str = ""
    """LlamaForCausalLM, … or a GGUF's general.architecture."""
    parameters: int | None = None
    weight_bytes: int | None = None
    """Sum of the tensors as stored."""
    dtype: str = ""
    """The dtype most parameters are stored in: bfloat16, float16, float32, or a GGUF's quantisation (Q4_1)."""
    layers: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    attention_heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int | None = None
    context_length: int | None = None
    quantisation: str = ""
    """gptq, awq, fp8, bitsandbytes-4bit, Q4_K_M, … or empty."""
    experts: int | None = None
    experts_per_token: int | None = None
    kv_lora_rank: int | None = None
    """MLA's latent size; with ``qk_rope_head_dim`` it replaces the heads in the KV cache."""
    qk_rope_head_dim: int | None = None
    sliding_window: int | None = None
    sliding_layers: int = 0
    """Layers that keep only the window."""
    stateless_layers: int = 0
    """Layers without a KV cache that grows (linear attention, Mamba)."""
    remote_code: bool = False
    """config.json names code of the model's own (auto_map)."""
    revision: str | None = None
    files: tuple[str, ...] = field(default=())
    download_bytes: int = 0
    """What is still to be downloaded before it can be loaded."""
    hub: str = ""
    """huggingface | modelscope: where it is downloaded from. Empty for what is on this machine."""
