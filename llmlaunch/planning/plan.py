"""The plan: which processes to run, from what the user wants and what the machine has. Pure: everything comes in as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePath

from llmlaunch.common.addresses import is_loopback, local_url
from llmlaunch.engines import capability, registry
from llmlaunch.engines.companions import companions
from llmlaunch.engines.flags import notes
from llmlaunch.engines.types import Engine
from llmlaunch.errors import ManifestError, Problem
from llmlaunch.hardware.types import Inventory, MemoryKind
from llmlaunch.manifest.types import ApiSpec, EngineName, GpuAuto, GpuCpu, GpuPinned, Manifest, ModelSpec
from llmlaunch.models.facts import ModelFacts
from llmlaunch.planning import devices, engine_choice, environment, estimate, naming, placement, ports, specs
from llmlaunch.planning.formatting import listed, size
from llmlaunch.planning.pool import DevicePool
from llmlaunch.planning.types import GpuBudget, Plan, PlanningContext, ProcessSpec, Rejection

_OURS = frozenset({"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"})


@dataclass(frozen=True, slots=True)
class _Replica:
    name: str
    group: int
    number: int
    model: ModelSpec
    facts: ModelFacts | None
    engine: Engine
    port: int


def plan(
    manifest: Manifest, inventory: Inventory, facts: Mapping[str, ModelFacts], context: PlanningContext
) -> Plan:
    """What to run for ``manifest`` on ``inventory``; ``facts`` by :attr:`ModelSpec.model`, except for ``engine: command``.

    Of what is loaded beside models (:mod:`llmlaunch.engines.companions`) they are by its name in engine_args, as far as known.

    Replicas that run unchanged (``context.running``) keep their devices, port and spec to the letter. What does not fit is in
    ``Plan.rejections``, with the numbers. Raises ManifestError for what an engine cannot do, PlanError for hosts that are not this
    machine, PortTakenError for a requested port that somebody else holds.
    """
    survey = devices.survey(inventory, context)
    manifest = engine_choice.chosen(manifest, facts, survey, context)
    refuse_invalid(manifest)
    ports.refuse_unusable_hosts(manifest, context)
    stems = naming.stems(manifest.models, context.running)
    requests = ports.port_requests(manifest, stems)
    assigned = ports.assign(requests, context)
    replicas = _replicas(manifest, facts, stems, assigned)
    controller_url = local_url(manifest.controller.host, assigned[naming.CONTROLLER])
    make = specs.ProcessSpecBuilder(manifest, context, controller_url)

    pool = DevicePool(survey, _why_no_gpus(inventory))
    workers = _unchanged(replicas, pool, context, make)
    waiting = [_request(replica, context) for replica in replicas if replica.name not in workers]
    outcomes = placement.place(waiting, pool)
    for replica in replicas:
        outcome = outcomes.get(replica.name)
        if isinstance(outcome, placement.Placed):
            visible = devices.mask(outcome.devices, replica.engine.index_mask and survey.countable)
            workers[replica.name] = _spec(
                make, replica, outcome.devices, outcome.claims, visible, outcome.reason
            )

    return Plan(
        deployment=manifest.name,
        processes=(
            make.controller(assigned[naming.CONTROLLER]),
            *(workers[replica.name] for replica in replicas if replica.name in workers),
            make.api(assigned[naming.API]),
        ),
        gpus=_budgets(pool, tuple(workers.values())),
        rejections=_rejections(replicas, outcomes),
        served_names=manifest.served_names,
        notes=(
            *_inventory_notes(inventory),
            *flag_notes(manifest),
            *survey.notes,
            *_cpu_notes(replicas, workers, pool),
            *_companion_notes(replicas),
            *_capability_notes(replicas, workers, survey),
            *_exposed_secrets(workers, replicas),
            *_open_endpoint_notes(manifest.api),
            *ports.reassignment_notes(requests, assigned, context),
        ),
        manifest_path=manifest.path,
        workdir=str(PurePath(manifest.path).parent) if manifest.path else "",
        private_env=environment.private_names(
            (name for model in manifest.models for name in model.variables), manifest.api.api_keys_env
        ),
    )


def refuse_invalid(manifest: Manifest) -> None:
    """Raise ManifestError with everything that an engine cannot do, at the models' places in the file."""
    problems = []
    for model in manifest.models:
        where = model.position
        engine = registry.get(model.engine)
        said = [*engine.problems(model)]
        if engine.key_variable in model.env:
            said.append(f"env: {engine.key_variable} is set by the deployment; clients' keys belong to api:")
        said += [
            f"env: {key} is set by the plan; write gpus: on the model" for key in model.env if key in _OURS
        ]
        problems += [
            Problem(
                where.file if where else manifest.path or manifest.name,
                where.line if where else 0,
                where.column if where else 0,
                f"model {model.names[0]}: {text}",
            )
            for text in (_without_secrets(model, text) for text in said)
        ]
    if problems:
        raise ManifestError(problems)


def flag_notes(manifest: Manifest) -> list[str]:
    """Notes on engine_args that the engine, as far as it is known here, does not have."""
    found = [
        f"{model.names[0]}: {text}"
        for model in manifest.models
        for text in notes(model.engine_args, registry.get(model.engine).flags)
    ]
    return list(dict.fromkeys(found))


def _without_secrets(model: ModelSpec, text: str) -> str:
    """``text`` without values that came from the environment. Numbers stay: a short one stands anywhere."""
    for real, shown in model.hidden:
        if isinstance(real, str | list | dict):
            text = text.replace(repr(real), repr(shown))
    return text


def _exposed_secrets(workers: Mapping[str, ProcessSpec], replicas: list[_Replica]) -> list[str]:
    """Notes on secrets that command lines show."""
    found: dict[str, None] = {}
    for replica in replicas:
        spec = workers.get(replica.name)
        for name in specs.exposed(spec) if spec else ():
            what = f"{replica.model.names[0]}: the value of ${{{name}}} is part of its command line, which every user of"
            found[f"{what} this machine can read; env: passes a value unseen"] = None
    return list(found)


def _replicas(
    manifest: Manifest, facts: Mapping[str, ModelFacts], stems: tuple[str, ...], assigned: Mapping[str, int]
) -> list[_Replica]:
    found = []
    for group, (stem, model) in enumerate(zip(stems, manifest.models, strict=True)):
        known = None if model.engine is EngineName.COMMAND else _with_companions(model, facts)
        engine = registry.get(model.engine)
        for number in range(1, model.replicas + 1):
            name = f"{stem}-{number}"
            found.append(_Replica(name, group, number, model, known, engine, assigned[name]))
    return found


def _with_companions(model: ModelSpec, facts: Mapping[str, ModelFacts]) -> ModelFacts:
    beside = tuple(replace(item, facts=facts.get(item.source)) for item in companions(model))
    return replace(facts[model.model], companions=beside)


def _unchanged(
    replicas: list[_Replica],
    pool: DevicePool,
    context: PlanningContext,
    make: specs.ProcessSpecBuilder,
) -> dict[str, ProcessSpec]:
    """The running replicas that the manifest still wants unchanged, taken out of ``pool``."""
    running = {spec.name: spec for spec in context.running}
    kept = {}
    for replica in replicas:
        old = running.get(replica.name)
        where = _unmoved(replica, old, pool.survey) if old else None
        if old is None or where is None:
            continue
        # A mask that names the same devices in the other way (a GPU was lost since) is no reason to restart.
        masks = [devices.mask(where, by_index) for by_index in (True, False)]
        visible = old.mask if old.mask in masks else masks[0]
        new = _spec(make, replica, where, old.vram_per_gpu, visible, old.reason)
        if replace(new, engine_reason=old.engine_reason, engine_auto=old.engine_auto) == old:
            reserved = devices.reserved(old, context)
            pool.take(where, [reserved[device.uuid] for device in where], replica.group)
            kept[replica.name] = old
    return kept


def _unmoved(
    replica: _Replica, old: ProcessSpec, survey: devices.Survey
) -> tuple[devices.Device, ...] | None:
    """The devices ``old`` runs on, if the manifest still allows just them and as much of them."""
    found = [survey.find(uuid) for uuid in old.gpus]
    where = tuple(device for device in found if isinstance(device, devices.Device))
    if len(where) < len(found) or len(old.vram_per_gpu) != len(where):
        return None
    model = replica.model
    match model.gpus:
        case GpuCpu():
            allowed = not where
        case GpuPinned(devices=wanted):
            allowed = [survey.find(device) for device in wanted] == list(where)
        case GpuAuto(count=count):
            allowed = len(where) == (count or 1) or (count is None and not where)
    if model.vram_bytes is not None and where:
        share = -(-model.vram_bytes // len(where))
        allowed = allowed and all(claim == share for claim in old.vram_per_gpu)
    return where if allowed else None


def _request(replica: _Replica, context: PlanningContext) -> placement.PlacementRequest:
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
        return capability.unsuited(engine, model, facts, device.capability, _called(device))

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


def _spec(
    make: specs.ProcessSpecBuilder,
    replica: _Replica,
    where: tuple[devices.Device, ...],
    claims: tuple[int, ...],
    visible: str,
    reason: str,
) -> ProcessSpec:
    return make.worker(
        replica.name,
        replica.model,
        replica.facts,
        replica.engine,
        replica.port,
        where,
        claims,
        visible,
        reason,
    )


def _why_no_gpus(inventory: Inventory) -> str:
    if not inventory.gpus:
        return inventory.note
    if inventory.visible == ():
        return "the CUDA_VISIBLE_DEVICES that llmlaunch was started with hides every GPU"
    reasons = ((gpu.index, devices.unfit(gpu)) for gpu in inventory.gpus)
    return "; ".join(f"GPU {index} cannot be used: {why}" for index, why in reasons if why)


def _inventory_notes(inventory: Inventory) -> tuple[str, ...]:
    """What was noticed about the machine; why there is no GPU is said where it matters."""
    return (inventory.note,) if inventory.note and inventory.gpus and not inventory.simulated else ()


def _budgets(pool: DevicePool, workers: tuple[ProcessSpec, ...]) -> tuple[GpuBudget, ...]:
    planned: dict[str, int] = {}
    for spec in workers:
        for uuid, claim in zip(spec.gpus, spec.vram_per_gpu, strict=True):
            planned[uuid] = planned.get(uuid, 0) + claim
    # Main memory is also taken by models on the CPU, and by those on other GPUs that use it.
    planned |= {
        d.uuid: d.free - pool.left[d.position] for d in pool.survey.devices if d.memory is MemoryKind.MAIN
    }
    return tuple(
        GpuBudget(d.index, d.uuid, d.name, d.total, d.free, planned.get(d.uuid, 0))
        for d in pool.survey.devices
    )


def _rejections(replicas: list[_Replica], outcomes: Mapping[str, placement.Outcome]) -> tuple[Rejection, ...]:
    """One per model, for all of its replicas that have no place."""
    refused: dict[int, list[tuple[_Replica, str]]] = {}
    for replica in replicas:
        outcome = outcomes.get(replica.name)
        if isinstance(outcome, placement.NotPlaced):
            refused.setdefault(replica.group, []).append((replica, outcome.reason))
    found = []
    for rows in refused.values():
        first, reason = rows[0]
        if first.model.replicas > 1:
            numbers = listed([str(replica.number) for replica, _ in rows])
            reason = (
                f"{'replicas' if len(rows) > 1 else 'replica'} {numbers} of {first.model.replicas}: {reason}"
            )
        found.append(Rejection(first.model.names[0], reason))
    return tuple(found)


def _open_endpoint_notes(api: ApiSpec) -> list[str]:
    if api.api_keys_file or api.api_keys_env or is_loopback(api.host):
        return []
    return [
        f"anyone who can reach this machine can use the endpoint: it listens on {api.host} and asks for no key; "
        "set api_keys_file or api_keys_env under api, or host: 127.0.0.1"
    ]


def _companion_notes(replicas: list[_Replica]) -> list[str]:
    """What is loaded beside a model and could not be looked at."""
    found: dict[str, None] = {}
    for replica in replicas:
        for item in replica.facts.companions if replica.facts else ():
            if item.facts is None and replica.model.vram_bytes is None:
                who = f"{replica.model.names[0]}: its {item.role.value} {item.source}"
                found[
                    f"{who} was not found or could not be read, so its memory is not counted; vram: says how much"
                ] = None
    return list(found)


def _cpu_notes(replicas: list[_Replica], workers: Mapping[str, ProcessSpec], pool: DevicePool) -> list[str]:
    """Models that run on the CPU although the manifest did not say so."""
    found: dict[str, None] = {}
    for replica in replicas:
        spec = workers.get(replica.name)
        if spec is None or spec.gpus or not isinstance(replica.model.gpus, GpuAuto):
            continue
        why = pool.note or "this machine has no GPU"
        if pool.survey.devices:
            why = "it was started there, before there was a GPU to use"
        found[f"{replica.model.names[0]} runs on the CPU: {why}"] = None
    return list(found)


def _capability_notes(
    replicas: list[_Replica], workers: Mapping[str, ProcessSpec], survey: devices.Survey
) -> list[str]:
    """What models cannot do as well as they might on the GPUs that they got; once for each model and kind of GPU."""
    found: dict[tuple[int, str], str] = {}
    for replica in replicas:
        spec = workers.get(replica.name)
        for uuid in spec.gpus if spec else ():
            device = survey.find(uuid)
            if replica.facts is None or isinstance(device, str) or device.capability is None:
                continue
            note = capability.remark(
                replica.engine, replica.model, replica.facts, device.capability, _called(device)
            )
            if note:
                found.setdefault((replica.group, device.name), note)
    return list(found.values())


def _called(device: devices.Device) -> str:
    return f"{device.label} ({device.name})"
