"""``engine: auto``: which engine serves a model, by written rules over what can be run here. Pure.

====================================  =========================================================================
``engine_args`` given                 the built-in engine: they are flags of one engine, and it is the default
GGUF                                  llamacpp where it can be run, else the built-in one, which converts it
embeds or reranks, or on the CPU      the built-in engine
other formats than safetensors        the built-in engine
safetensors on a GPU                  vllm, else sglang, where it can be run, knows the architecture and suits the GPU;
                                      else the built-in engine
====================================  =========================================================================

A model that runs keeps the engine that was chosen for it for as long as that can be run: what somebody installs meanwhile does
not restart it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from llmlaunch.engines import capability, registry
from llmlaunch.manifest.types import EngineName, GpuAuto, GpuCpu, GpuPinned, Manifest, ModelSpec
from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.planning.devices import Device, Survey
from llmlaunch.planning.types import InstalledEngine, PlanningContext

_BUILT_IN = EngineName.TRANSFORMERS
_NAMES = {EngineName.LLAMACPP: "llama.cpp", EngineName.VLLM: "vLLM", EngineName.SGLANG: "SGLang"}
_OURS_ALONE = frozenset(("auto", "none", "gemma"))
"""Names for ``tool_parser`` that the built-in engine knows, and vLLM does not."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, and why, as the rest of a sentence."""

    engine: EngineName
    reason: str


def chosen(
    manifest: Manifest, facts: Mapping[str, ModelFacts], survey: Survey, context: PlanningContext
) -> Manifest:
    """``manifest`` with an engine for each of its models that leaves it to the rules."""
    models = [
        _with_engine(model, facts[model.model], survey, context) if model.engine is EngineName.AUTO else model
        for model in manifest.models
    ]
    return replace(manifest, models=tuple(models))


def _with_engine(model: ModelSpec, facts: ModelFacts, survey: Survey, context: PlanningContext) -> ModelSpec:
    known = context.installed.get(model.names[0])
    made = choose(model, facts, known or {}, _devices(model, survey))
    if kept := _kept(model, made, known, context):
        made = kept
    reason = f"engine auto: {made.engine.value}: {made.reason}"
    model = replace(model, engine=made.engine, engine_reason=reason)
    if made.engine is _BUILT_IN and model.python and known is not None and _BUILT_IN not in known:
        # That environment is another engine's, which was not chosen.
        note = f"; by the Python that runs llmlaunch, because {model.python} does not have it"
        model = replace(model, python=None, venv="", engine_reason=reason + note)
    return model


def choose(
    model: ModelSpec,
    facts: ModelFacts,
    installed: Mapping[EngineName, InstalledEngine],
    devices: Sequence[Device],
) -> Choice:
    """The engine for ``model``. ``installed`` can be run here; ``devices`` are those that the model may use, none for the CPU."""
    if model.engine_args:
        return Choice(_BUILT_IN, "engine_args are flags of one engine; name another one to give it its own")
    if facts.format == "gguf":
        return _for_gguf(model, facts, installed)
    if facts.kind is not ModelKind.GENERATE:
        return Choice(_BUILT_IN, "it embeds" if facts.kind is ModelKind.EMBED else "it reranks")
    if not devices:
        return Choice(_BUILT_IN, "on the CPU")
    if facts.format != "safetensors":
        return Choice(_BUILT_IN, f"its weights are {facts.format}, not safetensors")
    against = []
    for name in (EngineName.VLLM, EngineName.SGLANG):
        why_not = _why_not(name, model, facts, installed, devices)
        if not why_not:
            tools = "" if model.tool_parser else "; its tool calls need tool_parser:"
            return Choice(
                name, f"safetensors on a GPU, and {installed[name].where} knows {facts.architecture}{tools}"
            )
        against.append(why_not)
    return Choice(_BUILT_IN, "; ".join(against))


def _for_gguf(model: ModelSpec, facts: ModelFacts, installed: Mapping[EngineName, InstalledEngine]) -> Choice:
    why_not = _why_not(EngineName.LLAMACPP, model, facts, installed, ())
    if why_not:
        return Choice(_BUILT_IN, f"it converts GGUF; {why_not}")
    return Choice(EngineName.LLAMACPP, f"GGUF, and there is {installed[EngineName.LLAMACPP].where}")


def _why_not(
    name: EngineName,
    model: ModelSpec,
    facts: ModelFacts,
    installed: Mapping[EngineName, InstalledEngine],
    devices: Sequence[Device],
) -> str:
    """Why an engine is not taken, with its name; empty: nothing speaks against it."""
    found, engine = installed.get(name), registry.get(name)
    if found is None:
        return f"no {_NAMES[name]} here"
    if found.architectures is not None and facts.architecture not in found.architectures:
        return f"{found.where} does not know {facts.architecture or 'its architecture'}"
    wanted = replace(model, engine=name)
    count = len(model.gpus.devices) if isinstance(model.gpus, GpuPinned) else 1
    if isinstance(model.gpus, GpuAuto):
        count = model.gpus.count or 1
    problems: list[Callable[[], str]] = [
        lambda: next(iter(engine.problems(wanted)), ""),
        lambda: "its tool parsers have other names" if _other_parser(name, model) else "",
        lambda: engine.unsupported(facts, count),
        lambda: _unsuited(name, wanted, facts, devices),
    ]
    why_not = next((text for problem in problems if (text := problem())), "")
    return f"{_NAMES[name]}: {why_not}" if why_not else ""


def _other_parser(name: EngineName, model: ModelSpec) -> bool:
    if model.tool_parser is None or name is EngineName.LLAMACPP:
        return False
    return name is EngineName.SGLANG or model.tool_parser in _OURS_ALONE


def _unsuited(name: EngineName, model: ModelSpec, facts: ModelFacts, devices: Sequence[Device]) -> str:
    """Why none of ``devices`` is new enough; one is enough, because placement leaves the others out."""
    found = [
        capability.unsuited(registry.get(name), model, facts, device.capability, f"GPU {device.index}")
        if device.capability
        else ""
        for device in devices
    ]
    return found[0] if found and all(found) else ""


def _devices(model: ModelSpec, survey: Survey) -> tuple[Device, ...]:
    """What the model may be placed on; empty: the CPU."""
    match model.gpus:
        case GpuCpu():
            return ()
        case GpuPinned(devices=wanted):
            found = [survey.find(device) for device in wanted]
            return tuple(device for device in found if isinstance(device, Device))
        case _:
            return survey.devices


def _kept(
    model: ModelSpec,
    made: Choice,
    installed: Mapping[EngineName, InstalledEngine] | None,
    context: PlanningContext,
) -> Choice | None:
    """The engine that was chosen for the model when it was started, if that is another one and can still be run."""
    for spec in context.running:
        if (spec.model, spec.names) != (model.model, model.names) or spec.name in context.idle:
            continue
        if not spec.engine_auto or spec.engine == made.engine:
            return None
        engine = EngineName(spec.engine)
        if engine is not _BUILT_IN and (installed is None or engine not in installed):
            return None
        if registry.get(engine).problems(replace(model, engine=engine)):
            return None
        reason = f"it was started with that; by now it would be {made.engine.value}: {made.reason} (down and up change it)"
        return Choice(engine, reason)
    return None
