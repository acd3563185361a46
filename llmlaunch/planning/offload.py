"""What of a model stays in main memory although it runs on a GPU, because its engine's arguments say so. Sizes in bytes.

llama.cpp puts the last ``--gpu-layers`` layers on GPUs, the output counting as one (llama-model.cpp, ``load_tensors``), and keeps the
experts of some layers on the CPU with ``--cpu-moe``, ``--n-cpu-moe`` and ``--override-tensor``. vLLM and SGLang take
``--cpu-offload-gb`` of each GPU's weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmlaunch.engines import registry
from llmlaunch.engines.types import Engine
from llmlaunch.manifest.types import EngineName, ModelSpec
from llmlaunch.models.facts import LayerCache, ModelFacts

_EXPERT_TENSORS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")


@dataclass(frozen=True, slots=True)
class Offload:
    """``weights``: bytes that stay in main memory. ``caches``: the layers whose cache is on a GPU."""

    weights: int
    caches: tuple[LayerCache, ...]


def offload(model: ModelSpec, facts: ModelFacts, engine: Engine, count: int, weights: int) -> Offload:
    """What ``model`` leaves in main memory of its ``weights`` bytes, over all of its ``count`` GPUs."""
    args, flags = model.engine_args, engine.flags
    if engine.name != EngineName.LLAMACPP:
        given = flags.number(args, "cpu-offload-gb") or 0.0
        taken = int(given * (1 << 30)) * count if given > 0 else 0
        return Offload(min(taken, weights), facts.layer_caches)
    layers = facts.layers or 0
    first = _first_on_gpu(model, layers)
    if first > layers:
        return Offload(weights, ())
    kept = sum(_kept_of_layers(model, facts, first, weights))
    caches = facts.layer_caches
    if first:
        caches = tuple(_after(caches, first))
    if flags.value(args, "kv-offload") is False:
        caches = ()
    return Offload(min(kept, weights), caches)


def _first_on_gpu(model: ModelSpec, layers: int) -> int:
    """The first layer on a GPU; ``layers`` is the output, and one more means that nothing is."""
    given = registry.get(model.engine).flags.integer(model.engine_args, "gpu-layers")
    if not layers or given is None or given < 0:
        return 0
    return max(layers + 1 - given, 0)


def _kept_of_layers(model: ModelSpec, facts: ModelFacts, first: int, weights: int) -> Iterator[int]:
    layers = facts.layers or 1
    if len(facts.layer_weights) != layers:
        yield weights * first // (layers + 1)
        return
    for index, layer in enumerate(facts.layer_weights):
        if index < first:
            yield layer.size
        elif layer.experts:
            yield int(layer.experts * _share_of_experts(model, index))


def _share_of_experts(model: ModelSpec, index: int) -> float:
    """The share of a layer's experts that stays on the CPU."""
    layers = registry.get(model.engine).flags.integer(model.engine_args, "n-cpu-moe")
    if registry.given(model, "cpu-moe") is True or (layers is not None and index < layers):
        return 1
    names = [f"blk.{index}.{name}.weight" for name in _EXPERT_TENSORS]
    return sum(_on_cpu(model, name) for name in names) / len(names)


def _on_cpu(model: ModelSpec, tensor: str) -> bool:
    """``--override-tensor PATTERN=BUFFER,…``: the first pattern that fits decides."""
    given = registry.given(model, "override-tensor")
    for rule in (
        ",".join(map(str, given)).split(",") if isinstance(given, list) else str(given or "").split(",")
    ):
        pattern, _, buffer = rule.rpartition("=")
        try:
            if pattern and re.search(pattern, tensor):
                return buffer.upper().startswith("CPU")
        except re.error:
            continue
    return False


def _after(caches: tuple[LayerCache, ...], first: int) -> Iterator[LayerCache]:
    """``caches`` without the first layers."""
    for run in caches:
        if run.count > first:
            yield replace(run, count=run.count - first)
        first = max(0, first - run.count)
