"""Which devices may be used, and by which name: MIG, lost GPUs, masks."""

from __future__ import annotations

from dataclasses import replace

from llmlaunch.manifest.types import (
    GpuAuto,
    GpuPinned,
)
from llmlaunch.planning.types import PlanningContext
from tests.unit.planning.builders import (
    VLLM,
    GiB,
    box,
    gpu,
    mig_gpu,
    model,
    planned,
    reason,
    spec,
    uuid,
    workers,
)


def test_mig_instances_are_devices_and_their_gpu_is_none() -> None:
    inventory = box(mig_gpu(0, 2), gpu(1))
    made = planned(model("smollm2", replicas=2), on=inventory)
    first, second = workers(made).values()
    assert {first[0][:3], second[0][:3]} == {"MIG"}
    assert spec(made, "smollm2-1").mask == first[0]
    assert [(g.index, g.uuid[:3]) for g in made.gpus] == [(0, "MIG"), (0, "MIG"), (1, "GPU")]
    text = reason(planned(model("smollm2", gpus=GpuPinned((0,))), on=inventory))
    assert text.startswith("GPU 0 is in MIG mode; name MIG-")


def test_mig_is_named_by_uuid_even_where_gpus_are_named_by_index() -> None:
    part = uuid(0, "MIG")
    pinned = model(engine=VLLM, vram_bytes=5 * GiB, gpus=GpuPinned((part,)))
    assert spec(planned(pinned, on=box(mig_gpu(0, 1))), "llama-1").mask == part


def test_a_replica_spans_no_mig_instances() -> None:
    inventory = box(mig_gpu(0, 2))
    both = GpuPinned((uuid(0, "MIG"), uuid(1, "MIG")))
    assert "one MIG instance" in reason(planned(model("smollm2", gpus=both), on=inventory))
    assert not planned(model("smollm2", gpus=GpuAuto(2)), on=inventory).fits


def test_a_lost_gpu_is_left_out_with_a_note() -> None:
    inventory = box(replace(gpu(0), lost="GPU is lost"), gpu(1))
    made = planned(model(), on=inventory)
    assert workers(made) == {"llama-1": (uuid(1),)}
    assert made.notes == ("GPU 0 (NVIDIA A100-SXM4-80GB) is left out: GPU is lost",)
    assert reason(planned(model(gpus=GpuPinned((0,))), on=inventory)) == "GPU 0 cannot be used: GPU is lost"
    both = reason(planned(model(gpus=GpuAuto(2)), on=inventory))
    assert both == "needs 2 GPUs, and 1 GPU can be used (GPU 0 cannot be used: GPU is lost)"


def test_a_mig_instance_that_cannot_be_used_is_named() -> None:
    part = uuid(0, "MIG")
    pinned = model("smollm2", gpus=GpuPinned((part,)))
    lost = box(replace(mig_gpu(0, 1), lost="GPU is lost"), gpu(1))
    assert reason(planned(pinned, on=lost)) == f"{part} on GPU 0 cannot be used: GPU is lost"
    hidden = replace(box(mig_gpu(0, 1), gpu(1)), visible=(uuid(1),))
    assert reason(planned(pinned, on=hidden)).startswith(f"{part} on GPU 0 is hidden by the CUDA_VISIBLE_DEV")


def test_only_visible_devices_are_used_and_index_masks_stay_absolute() -> None:
    inventory = replace(box(*map(gpu, range(4))), visible=(uuid(2), uuid(3)))
    made = planned(model(engine=VLLM, gpus=GpuAuto(2)), on=inventory)
    assert spec(made, "llama-1").mask == "2,3"
    text = reason(planned(model(gpus=GpuPinned((0,))), on=inventory))
    assert text == "GPU 0 is hidden by the CUDA_VISIBLE_DEVICES that llmlaunch was started with"
    hidden = planned(model("smollm2"), on=replace(inventory, visible=()))
    assert "CUDA_VISIBLE_DEVICES" in hidden.notes[0]


def test_masks_are_uuids_for_the_built_in_worker_and_indexes_for_the_others() -> None:
    made = planned(model(), model(names=("v",), engine=VLLM), on=box(gpu(0)))
    assert spec(made, "llama-1").mask == uuid(0)
    assert spec(made, "v-1").mask == "0"
    assert spec(made, "controller").mask == spec(made, "api").mask == ""
    assert spec(made, "api").env["CUDA_VISIBLE_DEVICES"] == ""


def test_indexes_are_not_used_where_cuda_may_count_otherwise() -> None:
    """CUDA skips a lost GPU, so every index after it would mean another one."""
    wanted = model(engine=VLLM, gpus=GpuPinned((2,)))
    fine = box(*map(gpu, range(3)))
    before = planned(wanted, on=fine)
    assert spec(before, "llama-1").mask == "2"
    for odd in (box(replace(gpu(0), lost="GPU is lost"), gpu(1), gpu(2)), box(mig_gpu(0, 2), gpu(1), gpu(2))):
        assert spec(planned(wanted, on=odd), "llama-1").mask == uuid(2)
        again = planned(wanted, on=odd, context=PlanningContext(running=before.processes))
        assert again.processes == before.processes, "what runs already has found its GPU"
