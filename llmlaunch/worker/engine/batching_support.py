"""Which models support batching with the KV cache: decided from the configuration, and verified by a trial."""

from __future__ import annotations

import logging
from typing import Any

import torch

from llmlaunch.worker.kv.cache import ATTENTION, KVCache
from llmlaunch.worker.kv.comparison import difference
from llmlaunch.worker.kv.types import Span

log = logging.getLogger(__name__)

PLAIN_LAYERS = {"full_attention", "sliding_attention"}
VERIFIED = {
    "gemma", "gemma3_text", "gpt2", "llama", "mistral", "mixtral", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3",
    "smollm3",
}  # fmt: skip
"""Model types whose answers the tests compare with transformers' own, token for token: no trial is needed."""


def why_unsupported(model: Any) -> str:
    """Why ``model`` does not support the shared KV cache; empty if it does. Reads the configuration alone."""
    config = model.config
    text = config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ())
    reasons = [
        (config.is_encoder_decoder, "it is an encoder-decoder"),
        (not type(model).__module__.startswith("transformers."), "it runs custom code"),
        (
            not getattr(model, "_supports_attention_backend", False),
            f"{type(model).__name__} has its own attention implementation",
        ),
        (
            bool(layers - PLAIN_LAYERS),
            f"it has layers without a plain KV cache ({', '.join(sorted(layers - PLAIN_LAYERS))})",
        ),
        (bool(getattr(text, "attn_logit_softcapping", None)), "it caps attention scores"),
        (bool(getattr(text, "num_kv_shared_layers", 0)), "its layers share keys and values"),
        (bool(getattr(text, "attention_chunk_size", None)), "its attention is chunked"),
        (text.model_type in ("gpt_oss",), "it has attention sinks"),
        (not hasattr(text, "num_hidden_layers"), "its configuration does not give the number of layers"),
    ]
    return "; ".join(reason for wrong, reason in reasons if wrong)


@torch.inference_mode()
def trial(model: Any) -> str:
    """Why the shared KV cache gives other logits than the model's own cache; empty if they agree.

    Compares a prompt in two chunks and one decode with a single plain forward pass. Costs three short passes.
    """
    size = 9
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    tokens = [(7 + 11 * at) % vocabulary for at in range(size)]
    device = model.get_input_embeddings().weight.device
    model.set_attn_implementation("sdpa" if getattr(model, "_supports_sdpa", False) else "eager")
    wanted = model(input_ids=torch.tensor([tokens], device=device), use_cache=False).logits[0, -1]
    model.set_attn_implementation(ATTENTION)
    cache = KVCache(model.config.get_text_config().num_hidden_layers, rows=2, columns=16)
    got: torch.Tensor | None = None
    try:
        for start, end in ((0, 5), (5, size - 1), (size - 1, size)):
            got = cache.run(
                model, [Span("trial", 1, start, tuple(tokens[start:end]), end == size, end < size)]
            )
    except Exception as error:
        return f"a trial of the shared KV cache failed: {type(error).__name__}: {error}"
    if got is None:
        return "a trial of the shared KV cache gave no logits"
    unlike = difference(got[0], wanted)
    return f"a trial of the shared KV cache gave different logits ({unlike})" if unlike else ""
