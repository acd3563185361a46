"""The replicas of a manifest's models, and what each asks of the placement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from llmlaunch.engines import capability, registry
from llmlaunch.engines.companions import companions
from llmlaunch.engines.types import Engine
from llmlaunch.manifest.types import EngineName, Manifest, ModelSpec
from llmlaunch.models.facts import ModelFacts
from llmlaunch.planning import devices, estimate, placement
from llmlaunch.planning.formatting import size
from llmlaunch.planning.types import PlanningContext


@dataclass(frozen=True, slots=True)
class Replica:
    """One of the processes that a model of the manifest is to have."""

    name: str
    group: int
    number: int
    model: ModelSpec
    facts: ModelFacts | None
    engine: Engine
    port: int


def replicas_of(
    manifest: Manifest, facts: Mapping[str, ModelFacts], stems: tuple[str, ...], assigned: Mapping[str, int]
) -> list[Replica]:
    """The replicas of all models; ``stems`` name the models, ``assigned`` has ports by component."""
    found = []
    for group, (stem, model) in enumerate(zip(stems, manifest.models, strict=True)):
        known = None if model.engine is EngineName.COMMAND else _with_companions(model, facts)
        engine = registry.get(model.engine)
        for number in range(1, model.replicas + 1):
            name = f"{stem}-{number}"
            found.append(Replica(name, group, number, model, known, engine, assigned[name]))
    return found


def _with_companions(model: ModelSpec, facts: Mapping[str, ModelFacts]) -> ModelFacts:
    beside = tuple(replace(item, facts=facts.get(item.source)) for item in companions(model))
    return replace(facts[model.model], companions=beside)


def request(replica: Replica, context: PlanningContext) -> placement.PlacementRequest:
    """What the placement has to know of a replica that is to get its devices."""
    model, facts, engine = replica.model, replica.facts, replica.engine

    @cache
    def need(count: int, gpu_name: str) -> estimate.VramNeed | None:
        return estimate.need(model, facts, engine, count, gpu_name, context.measured_vram)

    def unsupported(count: int) -> str:
        problem = engine.unsupported(facts, count) if facts else ""
        return problem or ("" if count else _too_large(model, weights, context))

    def unsuited(device: devices.Device) -> str:
        if facts is None or device.capability is None:
            return ""
        return capability.unsuited(engine, model, facts, device.capability, device.called)

    weights = estimate.weight_bytes(model, facts, engine.memory) if facts else None
    needs_gpu, without_gpu = _needs_gpu(model, engine)
    return placement.PlacementRequest(
        name=replica.name,
        group=replica.group,
        gpus=model.gpus,
        need=need,
        unsupported=unsupported,
        unsuited=unsuited,
        needs_gpu=needs_gpu,
        without_gpu=without_gpu,
        cpu_words=_cpu_words(model, facts, weights),
        cpu_bytes=(weights or 0) if _keeps_weights(model) else 0,
    )


def _cpu_words(model: ModelSpec, facts: ModelFacts | None, weights: int | None) -> str:
    """What a model takes of main memory. The built-in worker finds out by itself whether float32 is faster, and fits."""
    if not weights or facts is None:
        return ""
    words = f": weights {size(weights)} of main memory"
    widens = model.engine is EngineName.TRANSFORMERS and model.dtype == "auto" and facts.parameters
    if widens and (
        facts.format == "gguf" or (facts.dtype in estimate.SIXTEEN_BITS and not facts.quantisation)
    ):
        words += f", {size(4 * (facts.parameters or 0))} if float32 is faster"
    return words


def _needs_gpu(model: ModelSpec, engine: Engine) -> tuple[str, str]:
    """Why ``auto`` may not mean the CPU, and what to do on a machine without GPUs."""
    if not engine.auto_cpu:
        return f"{engine.name} needs a GPU", "engine transformers runs on the CPU"
    if model.engine is EngineName.COMMAND and model.vram_bytes:
        # Nothing else is known of a command: one that claims VRAM is made for a GPU.
        return f"needs a GPU, {size(model.vram_bytes)} of it (vram)", "gpus: cpu starts it without one"
    return "", ""


def _too_large(model: ModelSpec, weights: int | None, context: PlanningContext) -> str:
    if not _keeps_weights(model) or not weights or not context.main_memory:
        return ""
    if weights <= context.main_memory:
        return ""
    return f"its weights need {size(weights)} of main memory on the CPU, and this machine has {size(context.main_memory)}"


def _keeps_weights(model: ModelSpec) -> bool:
    """Whether its weights stay in main memory on the CPU. llama.cpp maps its file, and reads again what did not fit."""
    return model.engine is EngineName.TRANSFORMERS
