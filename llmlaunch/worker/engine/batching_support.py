"""Which models the slot cache can carry: decided from the configuration, and checked by computing."""

from __future__ import annotations

import logging
from typing import Any

import torch

from llmlaunch.worker.engine.scheduler import Span
from llmlaunch.worker.kv.cache import ATTENTION, SlotCache

log = logging.getLogger(__name__)

PLAIN_LAYERS = {"full_attention", "sliding_attention"}
VERIFIED = {
    "gemma", "gemma3_text", "gpt2", "llama", "mistral", "mixtral", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3",
    "smollm3",
}  # fmt: skip
"""Model types whose answers the tests compare with transformers' own, token for token: no trial at the start."""


def why_not_slots(model: Any) -> str:
    """Why ``model`` can not share a slot cache, in words; empty when it can. Reads the configuration alone."""
    config = model.config
    text = config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ())
    reasons = [
        (config.is_encoder_decoder, "it is an encoder-decoder"),
        (not type(model).__module__.startswith("transformers."), "it runs code of its own"),
        (
            not getattr(model, "_supports_attention_backend", False),
            f"{type(model).__name__} has attention of its own",
        ),
        (
            bool(layers - PLAIN_LAYERS),
            f"it has layers without a plain cache ({', '.join(sorted(layers - PLAIN_LAYERS))})",
        ),
        (bool(getattr(text, "attn_logit_softcapping", None)), "it caps attention scores"),
        (bool(getattr(text, "num_kv_shared_layers", 0)), "its layers share keys and values"),
        (bool(getattr(text, "attention_chunk_size", None)), "its attention is chunked"),
        (text.model_type in ("gpt_oss",), "it has attention sinks"),
        (not hasattr(text, "num_hidden_layers"), "its layers are not counted in its configuration"),
    ]
    return "; ".join(reason for wrong, reason in reasons if wrong)


@torch.inference_mode()
def trial(model: Any) -> str:
    """Why the slot cache gives other logits than the model's own cache, in words; empty when they agree.

    A prompt in two pieces and one decode are compared with one plain pass. Costs three short passes.
    """
    size = 9
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    tokens = [(7 + 11 * at) % vocabulary for at in range(size)]
    device = model.get_input_embeddings().weight.device
    model.set_attn_implementation("sdpa" if getattr(model, "_supports_sdpa", False) else "eager")
    wanted = model(input_ids=torch.tensor([tokens], device=device), use_cache=False).logits[0, -1]
    model.set_attn_implementation(ATTENTION)
    cache = SlotCache(model.config.get_text_config().num_hidden_layers, rows=2, columns=16)
    got: torch.Tensor | None = None
    try:
        for start, end in ((0, 5), (5, size - 1), (size - 1, size)):
            got = cache.run(
                model, [Span("trial", 1, start, tuple(tokens[start:end]), end == size, end < size)]
            )
    except Exception as error:
        return f"a trial of the shared cache failed: {type(error).__name__}: {error}"
    if got is None:
        return "a trial of the shared cache gave no logits"
    unlike = difference(got[0], wanted)
    return f"a trial of the shared cache gave other logits ({unlike})" if unlike else ""


def difference(got: torch.Tensor, wanted: torch.Tensor) -> str:
    """By how much ``got`` is off, in words; empty where rounding explains it."""
    scale = float(wanted.abs().max()) or 1.0
    off = float((got.float() - wanted.float()).abs().max()) / scale
    return "" if off <= (1e-3 if got.dtype == torch.float32 else 0.1) else f"by {off:.1%}"
