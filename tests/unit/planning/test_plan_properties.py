"""What holds for every box and every manifest."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.hardware.types import ComputeMode, Inventory, OccupiedPort
from llmlaunch.manifest.types import GpuAuto, GpuCpu, GpuPinned, Manifest, ModelSpec
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import Component, Plan, PlanningContext
from tests.unit.planning.builders import FACTS, as_used, inventories, manifest, manifests, model_specs

boxes = inventories()
any_manifest = manifests()
many = settings(max_examples=100, deadline=None)


def left(inventory: Inventory) -> dict[str, int]:
    """Free bytes by UUID of every device that may be used, worked out apart from the planner."""
    found: dict[str, int] = {}
    for gpu in inventory.gpus:
        if gpu.lost or gpu.compute_mode is ComputeMode.PROHIBITED:
            continue
        found |= {m.uuid: m.free_bytes for m in gpu.mig}
        if not gpu.mig_enabled:
            found[gpu.uuid] = gpu.free_bytes
    return {u: free for u, free in found.items() if inventory.visible is None or u in inventory.visible}


def seen_later(inventory: Inventory, made: Plan) -> list[tuple[Inventory, PlanningContext]]:
    """The world once ``made`` runs: still loading, loaded, and loaded where the driver does not tell who holds what."""
    loaded = as_used(inventory, made)
    nothing = {spec.name: dict.fromkeys(spec.gpus, 0) for spec in made.processes}
    everything = {spec.name: dict(zip(spec.gpus, spec.vram_per_gpu, strict=True)) for spec in made.processes}
    return [
        (inventory, PlanningContext(running=made.processes, used_vram=nothing)),
        (loaded, PlanningContext(running=made.processes, used_vram=everything)),
        (loaded, PlanningContext(running=made.processes)),
    ]


def claims(made: Plan) -> Counter[str]:
    total: Counter[str] = Counter()
    for spec in made.processes:
        total.update(dict(zip(spec.gpus, spec.vram_per_gpu, strict=True)))
    return total


@many
@given(boxes, any_manifest)
def test_no_device_is_oversold_or_used_against_its_state(inventory: Inventory, wanted: Manifest) -> None:
    made = plan(wanted, inventory, FACTS, PlanningContext())
    free = left(inventory)
    for uuid, claim in claims(made).items():
        assert claim <= free[uuid]
    replicas = Counter(uuid for spec in made.processes for uuid in spec.gpus)
    for gpu in inventory.gpus:
        assert gpu.compute_mode is not ComputeMode.EXCLUSIVE or replicas[gpu.uuid] <= 1
    assert {gpu.uuid: gpu.planned_bytes for gpu in made.gpus} == {uuid: claims(made)[uuid] for uuid in free}


@many
@given(boxes, any_manifest)
def test_every_replica_is_placed_or_refused_with_a_reason(inventory: Inventory, wanted: Manifest) -> None:
    made = plan(wanted, inventory, FACTS, PlanningContext())
    placed = Counter(spec.names[0] for spec in made.processes if spec.component is Component.WORKER)
    refused = {rejection.model: rejection.reason for rejection in made.rejections}
    for model in wanted.models:
        name = model.names[0]
        assert placed[name] <= model.replicas
        assert (placed[name] < model.replicas) == (name in refused)
        if name in refused:
            assert len(refused[name]) > 20
    assert all(spec.reason for spec in made.processes)
    assert made.fits == (sum(placed.values()) == sum(m.replicas for m in wanted.models))


@many
@given(boxes, any_manifest)
def test_a_replica_gets_what_it_asked_for(inventory: Inventory, wanted: Manifest) -> None:
    made = plan(wanted, inventory, FACTS, PlanningContext())
    models = {model.names[0]: model for model in wanted.models}
    by_index = {gpu.index: gpu.uuid for gpu in inventory.gpus}
    for spec in made.processes:
        if spec.component is not Component.WORKER:
            assert spec.gpus == ()
            continue
        model = models[spec.names[0]]
        match model.gpus:
            case GpuCpu():
                assert spec.gpus == ()
            case GpuPinned(devices=devices):
                assert spec.gpus == tuple(by_index[int(d)] for d in devices)
            case GpuAuto(count=count):
                assert len(spec.gpus) == (count or 1) or (count is None and not left(inventory))
        if model.vram_bytes is not None and spec.gpus:
            share = -(-model.vram_bytes // len(spec.gpus))
            assert spec.vram_per_gpu == (share,) * len(spec.gpus)
        assert len(set(spec.gpus)) == len(spec.gpus) == len(spec.vram_per_gpu)
        assert spec.vram_bytes == sum(spec.vram_per_gpu)
        assert len(spec.gpus) <= 1 or not any(uuid.startswith("MIG-") for uuid in spec.gpus)


@many
@given(boxes, any_manifest)
def test_masks_name_exactly_the_devices(inventory: Inventory, wanted: Manifest) -> None:
    made = plan(wanted, inventory, FACTS, PlanningContext())
    by_index = {str(gpu.index): gpu.uuid for gpu in inventory.gpus}
    for spec in made.processes:
        assert spec.mask is not None
        assert spec.env["CUDA_VISIBLE_DEVICES"] == spec.mask
        named = [by_index.get(entry, entry) for entry in spec.mask.split(",") if entry]
        assert tuple(named) == spec.gpus
        if spec.gpus:
            assert spec.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


@many
@given(boxes, any_manifest, st.lists(st.integers(8000, 8010) | st.integers(21000, 21020), max_size=20))
def test_ports_are_unique_and_free(inventory: Inventory, wanted: Manifest, taken: list[int]) -> None:
    context = PlanningContext(
        occupied_ports=tuple(OccupiedPort("127.0.0.1", port, "nginx (pid 80)") for port in taken)
    )
    made = plan(wanted, inventory, FACTS, context)
    used = [spec.port for spec in made.processes]
    assert len(set(used)) == len(used)
    assert not set(used) & set(taken)
    assert len({spec.name for spec in made.processes}) == len(made.processes)
    assert all(spec.address == f"http://127.0.0.1:{spec.port}" for spec in made.processes)


@many
@given(boxes, any_manifest)
def test_a_running_plan_is_planned_again_the_same(inventory: Inventory, wanted: Manifest) -> None:
    first = plan(wanted, inventory, FACTS, PlanningContext())
    assert plan(wanted, inventory, FACTS, PlanningContext()) == first
    for seen, context in seen_later(inventory, first):
        again = plan(wanted, seen, FACTS, context)
        assert again.processes == first.processes
        assert again.gpus == first.gpus
        assert again.notes == first.notes
        assert [r.model for r in again.rejections] == [r.model for r in first.rejections]


@many
@given(boxes, any_manifest, model_specs("added"), st.integers(0, 4))
def test_a_new_model_moves_nobody_and_oversells_nothing(
    inventory: Inventory, wanted: Manifest, added: ModelSpec, at: int
) -> None:
    first = plan(wanted, inventory, FACTS, PlanningContext())
    models = list(wanted.models)
    models.insert(at, added)
    bigger = manifest(*models)
    for seen, context in seen_later(inventory, first):
        second = plan(bigger, seen, FACTS, context)
        now = {spec.name: spec for spec in second.processes}
        assert all(now[spec.name] == spec for spec in first.processes)
        free = left(inventory)
        assert all(claim <= free[uuid] for uuid, claim in claims(second).items())


@many
@given(boxes, any_manifest, st.data())
def test_scaling_down_leaves_the_others_alone(
    inventory: Inventory, wanted: Manifest, data: st.DataObject
) -> None:
    first = plan(wanted, inventory, FACTS, PlanningContext())
    gone = data.draw(st.sampled_from(wanted.models))
    rest = [model for model in wanted.models if model is not gone]
    if not rest:
        return
    second = plan(manifest(*rest), as_used(inventory, first), FACTS, PlanningContext(running=first.processes))
    now = {spec.name: spec for spec in second.processes}
    for spec in first.processes:
        if spec.names != gone.names:
            assert now[spec.name] == spec
        else:
            assert spec.name not in now
