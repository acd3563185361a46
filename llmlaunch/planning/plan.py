"""The plan: which processes to run, from what the user wants and what the machine has. Pure: everything comes in as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

from llmlaunch.common.addresses import local_url
from llmlaunch.hardware.types import Inventory, MemoryKind
from llmlaunch.manifest.types import GpuAuto, GpuCpu, GpuPinned, Manifest
from llmlaunch.models.facts import ModelFacts
from llmlaunch.planning import (
    check,
    devices,
    engine_choice,
    environment,
    naming,
    notes,
    placement,
    ports,
    specs,
)
from llmlaunch.planning.formatting import listed
from llmlaunch.planning.pool import DevicePool
from llmlaunch.planning.replicas import Replica, replicas_of, request
from llmlaunch.planning.types import GpuBudget, Plan, PlanningContext, ProcessSpec, Rejection


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
    check.refuse_invalid(manifest)
    ports.refuse_unusable_hosts(manifest, context)
    stems = naming.stems(manifest.models, context.running)
    requests = ports.port_requests(manifest, stems)
    assigned = ports.assign(requests, context)
    replicas = replicas_of(manifest, facts, stems, assigned)
    controller_url = local_url(manifest.controller.host, assigned[naming.CONTROLLER])
    make = specs.ProcessSpecBuilder(manifest, context, controller_url)

    pool = DevicePool(survey, _why_no_gpus(inventory))
    workers = _unchanged(replicas, pool, context, make)
    waiting = [request(replica, context) for replica in replicas if replica.name not in workers]
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
            *notes.of_machine(inventory),
            *notes.unknown_flags(manifest),
            *survey.notes,
            *notes.on_the_cpu(replicas, workers, pool),
            *notes.unread_companions(replicas),
            *notes.old_gpus(replicas, workers, survey),
            *notes.exposed_secrets(workers, replicas),
            *notes.open_endpoint(manifest.api),
            *ports.reassignment_notes(requests, assigned, context),
        ),
        manifest_path=manifest.path,
        workdir=str(PurePath(manifest.path).parent) if manifest.path else "",
        private_env=environment.private_names(
            (name for model in manifest.models for name in model.variables), manifest.api.api_keys_env
        ),
    )


def _unchanged(
    replicas: list[Replica],
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


def _unmoved(replica: Replica, old: ProcessSpec, survey: devices.Survey) -> tuple[devices.Device, ...] | None:
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


def _spec(
    make: specs.ProcessSpecBuilder,
    replica: Replica,
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


def _rejections(replicas: list[Replica], outcomes: Mapping[str, placement.Outcome]) -> tuple[Rejection, ...]:
    """One per model, for all of its replicas that have no place."""
    refused: dict[int, list[tuple[Replica, str]]] = {}
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
