"""How much VRAM a replica needs. All sizes are bytes per GPU unless a name says otherwise.

::

    weights     = stored tensors / GPUs, or parameters x bytes of the dtype asked for
    KV          = by layer, see :mod:`llmlaunch.planning.kv_cache`
    activations = batch tokens · (4 · hidden + 2 · intermediate / GPUs) · 2 + sequences · vocabulary · 12
    total       = 1.02 · weights + KV + 1.2 · activations + context + communication + graphs
                  + projectors, adapters, draft model, less what stays in main memory (:mod:`llmlaunch.planning.offload`)

The KV formula is exact (it gives vLLM's own 23,040 bytes a token for SmolLM2-135M, and 70,272 for DeepSeek-V3); the constants of
the rest are not calibrated. So what a replica really took is measured and remembered under :func:`learning_key`, and beats the
estimate; ``vram`` in the manifest beats both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from llmlaunch.engines.companions import drafts_itself, takes_projector
from llmlaunch.engines.types import Engine, MemoryRule
from llmlaunch.manifest.types import ModelSpec
from llmlaunch.models.facts import CompanionRole, LayerCache, LayerKind, ModelFacts, ModelKind
from llmlaunch.planning import kv_cache, offload

_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SIXTEEN_BITS = frozenset({"bfloat16", "float16"})
_GiB = 1 << 30


class Origin(StrEnum):
    """Where a figure of memory comes from."""

    MANIFEST = "manifest"
    LEARNED = "learned"
    ESTIMATE = "estimate"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class VramNeed:
    """What one replica takes on each of its GPUs, and where the figure comes from."""

    per_gpu: int
    count: int
    origin: Origin
    parts: tuple[tuple[str, int], ...] = ()
    """Name and bytes per GPU; empty unless estimated."""
    main_memory: int = 0
    """Bytes of weights that its engine's arguments leave in main memory."""

    @property
    def total(self) -> int:
        """Bytes over all GPUs of the replica."""
        return self.per_gpu * self.count


def need(
    model: ModelSpec,
    facts: ModelFacts | None,
    engine: Engine,
    count: int,
    gpu_name: str = "",
    measured_vram: Mapping[str, int] | None = None,
) -> VramNeed | None:
    """What one replica of ``model`` takes on each of ``count`` GPUs called ``gpu_name``; None when nothing tells."""
    if model.vram_bytes is not None:
        return VramNeed(-(-model.vram_bytes // count), count, Origin.MANIFEST)
    if facts is None:
        return VramNeed(0, count, Origin.NOTHING)
    estimated = estimate(model, facts, engine, count)
    measured = (measured_vram or {}).get(
        learning_key(model.model, engine.name, effective_args(model, count), gpu_name)
    )
    if measured is None or measured <= 0:
        return estimated
    measured = -(-measured // count)
    if estimated and not engine.memory.preallocates:
        # Its cache grows with its requests, so what was seen just after the load is not yet all.
        growth = sum(size for name, size in estimated.parts if name in ("KV cache", "activations"))
        measured = max(measured, min(estimated.per_gpu, measured + growth))
    return VramNeed(measured, count, Origin.LEARNED)


def estimate(model: ModelSpec, facts: ModelFacts, engine: Engine, count: int) -> VramNeed | None:
    """The formula above. None when not even the size of the weights is known."""
    rule = engine.memory
    weights = weight_bytes(model, facts, rule)
    if weights is None:
        return None
    left = offload.offload(model, facts, engine, count, weights)
    share = -(-(weights - left.weights) // count)
    base = share * 102 // 100
    overhead = rule.context_bytes + rule.graph_bytes
    if count > 1 and not rule.layer_split:
        overhead += rule.parallel_bytes
    activations = _activations(model, facts, engine, count)
    room = kv_room(model, facts, engine)
    cache = kv_cache.cache_bytes(model, facts, engine, count, room)
    if activations is None or cache is None:
        # Too little is known of its shape; GPUStack's rule of thumb covers both.
        parts = [("weights", base), ("cache and activations", share // 5 + 2 * _GiB - rule.context_bytes)]
    else:
        if left.caches != facts.layer_caches:
            cache = _cache_of(left.caches, model, facts, engine, count, room)
        parts = [("weights", base), ("KV cache", cache), ("activations", activations * 12 // 10)]
    parts += _beside(model, facts, engine, count, room)
    parts.append(("context", overhead))
    known = tuple((name, size) for name, size in parts if size > 0)
    return VramNeed(sum(size for _, size in known), count, Origin.ESTIMATE, known, left.weights)


def _beside(
    model: ModelSpec, facts: ModelFacts, engine: Engine, count: int, room: kv_cache.Room
) -> list[tuple[str, int]]:
    """What is loaded beside the model. Projectors and adapters are whole on every GPU, a draft model is split as the model is."""
    sums: dict[str, int] = {}
    if takes_projector(model):
        sums[CompanionRole.PROJECTOR.value] = facts.projector_bytes
    for companion in facts.companions:
        found = companion.facts
        size = (found.weight_bytes or 0) if found else 0
        if found and companion.role is CompanionRole.DRAFT:
            size = -(-size // count) * 102 // 100
            size += kv_cache.cache_bytes(model, found, engine, count, room) or 0
        sums[companion.role.value] = sums.get(companion.role.value, 0) + size
    if engine.flags.value(model.engine_args, "mmproj-offload") is False:
        sums.pop(CompanionRole.PROJECTOR.value, None)
    if drafts_itself(model):
        attending = [
            layer for layer in facts.layer_caches if layer.kind in (LayerKind.FULL, LayerKind.SLIDING)
        ]
        last = tuple(replace(layer, count=max(facts.draft_layers, 1)) for layer in attending[-1:])
        sums["MTP layers"] = _cache_of(last, model, facts, engine, count, room)
    return list(sums.items())


def _cache_of(
    layers: tuple[LayerCache, ...],
    model: ModelSpec,
    facts: ModelFacts,
    engine: Engine,
    count: int,
    room: kv_cache.Room,
) -> int:
    return kv_cache.cache_bytes(model, replace(facts, layer_caches=layers), engine, count, room) or 0


def weight_bytes(model: ModelSpec, facts: ModelFacts, rule: MemoryRule) -> int | None:
    """Bytes of all weights together as the engine will hold them, or None when the files do not tell."""
    wanted = _DTYPE_BYTES.get(model.dtype)
    if facts.format == "gguf" and rule.layer_split and not rule.preallocates:
        wanted = wanted or 2  # the built-in worker unpacks GGUF into 16 bits
    elif facts.quantisation or facts.format == "gguf":
        wanted = None
    elif wanted is None and rule.half_precision and facts.dtype == "float32":
        wanted = 2
    if wanted and facts.parameters:
        return facts.parameters * wanted
    return facts.weight_bytes


def kv_room(model: ModelSpec, facts: ModelFacts, engine: Engine) -> kv_cache.Room:
    """How many sequences of how many tokens the KV cache is planned for.

    A paged engine shares one pool: it gets room for the rule's default, but never less than one sequence at full length.
    """
    rule, sequences, context = engine.memory, engine.sequences(model), engine.context(model, facts)
    if not rule.paged or sequences <= rule.default_sequences:
        return kv_cache.Room(sequences, context, sequences)
    pool = max(context, rule.default_sequences * min(context, rule.default_context))
    return kv_cache.Room(-(-pool // context), context, sequences)


def kv_tokens(model: ModelSpec, facts: ModelFacts, engine: Engine, count: int, claim: int) -> int | None:
    """Tokens of KV cache for which ``claim`` bytes per GPU have room beside everything else; None when unknown."""
    estimated = estimate(model, facts, engine, count)
    per_token = kv_cache.bytes_per_token(model, facts, engine, count)
    if estimated is None or per_token is None or not sum(per_token):
        return None
    rest = sum(size for name, size in estimated.parts if name != "KV cache")
    rest += engine.sequences(model) * kv_cache.state_bytes(facts, count)
    return max(0, claim - rest) // sum(per_token)


def learning_key(model: str, engine: str, args: Mapping[str, Any], gpu: str) -> str:
    """Under which measured VRAM is remembered: same model, engine, arguments and GPU model means the same need."""
    text = json.dumps([model, engine, args, gpu], sort_keys=True, default=str)
    return f"{engine}:{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"


def effective_args(model: ModelSpec, count: int) -> dict[str, Any]:
    """Everything in a model's entry that changes what it takes on a GPU."""
    return {
        "engine_args": dict(model.shown_engine_args or model.engine_args),
        "dtype": model.dtype,
        "revision": model.revision,
        "max_concurrency": model.max_concurrency,
        "max_model_len": model.max_model_len,
        "gpus": count,
    }


def _activations(model: ModelSpec, facts: ModelFacts, engine: Engine, count: int) -> int | None:
    if facts.hidden_size is None:
        return None
    rule = engine.memory
    inner = facts.intermediate_size or 4 * facts.hidden_size
    if not rule.layer_split:
        inner //= count
    logits = engine.sequences(model) * (facts.vocab_size or 0) * 12
    if facts.kind is not ModelKind.GENERATE:
        logits = 0
    return rule.batch_tokens * (4 * facts.hidden_size + 2 * inner) * 2 + logits
