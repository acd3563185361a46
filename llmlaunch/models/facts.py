"""What a model needs, as read from its files' headers: no weights loaded, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class ModelKind(StrEnum):
    """What a model answers with: text, vectors, or a score for each document."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"


class LayerKind(StrEnum):
    """What a layer keeps of a sequence."""

    FULL = "full"
    """Keys and values of every token."""
    SLIDING = "sliding"
    """Those of the last ``window`` tokens."""
    STATE = "state"
    """A state that does not grow: Mamba, linear attention, gated delta nets, convolutions."""
    NONE = "none"
    """Nothing: it only feeds forward, or looks at something else than the text."""
    SHARED = "shared"
    """Nothing of its own: it reads another layer's cache."""


@dataclass(frozen=True, slots=True)
class LayerCache:
    """``count`` layers that follow each other and keep the same of a sequence."""

    count: int
    kind: LayerKind = LayerKind.FULL
    kv_heads: int = 0
    key_dim: int = 0
    """Elements of a head's key, and of its value below."""
    value_dim: int = 0
    window: int | None = None
    """Tokens, for layers that are SLIDING."""
    latent: int = 0
    """MLA: elements a token that stand for all heads, if the engine keeps those; the heads above are what they expand to."""
    index_bytes: int = 0
    """Bytes a token beside keys and values, for sparse attention to search in."""
    stride: int = 1
    """Tokens that share one entry."""
    state_bytes: int = 0
    """Bytes a sequence that do not grow; attention beside a state has both."""


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Bytes of one layer's weights, and those of its experts among them."""

    size: int
    experts: int


class CompanionRole(StrEnum):
    """What a file that an engine loads beside the model is for; the words that people read."""

    PROJECTOR = "projector"
    DRAFT = "draft model"
    ADAPTER = "LoRA adapter"


@dataclass(frozen=True, slots=True)
class Companion:
    """A file, folder or hub id that an engine loads beside the model, as its arguments name it."""

    role: CompanionRole
    source: str
    facts: ModelFacts | None = None
    """None: not looked at, or not readable."""


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
    """safetensors | gguf | pytorch | mistral (params.json and consolidated*.safetensors) | unknown"""
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
    vocab_size: int | None = None
    context_length: int | None = None
    quantisation: str = ""
    """gptq, awq, fp8, bitsandbytes-4bit, Q4_K_M, … or empty."""
    experts: int | None = None
    experts_per_token: int | None = None
    layer_caches: tuple[LayerCache, ...] = ()
    """What each of the ``layers`` keeps of a sequence; empty when the files do not tell."""
    draft_layers: int = 0
    """Layers that predict further tokens (MTP, nextn), which engines run only when asked to."""
    layer_weights: tuple[LayerWeights, ...] = ()
    """By layer, of GGUF files whose tensors name it."""
    companions: tuple[Companion, ...] = ()
    """What else an engine loads with it, where a plan says so."""
    remote_code: bool = False
    """config.json names code of the model's own (auto_map)."""
    revision: str | None = None
    files: tuple[str, ...] = field(default=())
    """Weights of a local model; all that a worker needs of one on a hub. A GGUF model's first file comes first."""
    projector: str = ""
    """The GGUF file beside it, by name, through which it sees or hears (llama.cpp's ``--mmproj``)."""
    projector_bytes: int = 0
    download_bytes: int = 0
    """What is still to be downloaded before it can be loaded."""
    hub: str = ""
    """huggingface | modelscope: where it is downloaded from. Empty for what is on this machine."""
