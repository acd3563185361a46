"""GPUs that use main memory, and GPUs whose memory nobody knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmlaunch.hardware.types import MemoryKind
from llmlaunch.manifest.types import EngineName, GpuAuto, GpuCpu, GpuPinned
from llmlaunch.planning.types import PlanningContext
from tests.unit.planning.builders import (
    VLLM,
    GiB,
    box,
    gb10,
    gpu,
    mig_gpu,
    model,
    planned,
    reason,
    spec,
    untold,
    uuid,
    workers,
)


@pytest.mark.parametrize("engine", list(EngineName)[:3])
def test_main_memory_is_planned_like_a_gpus_own(engine: EngineName) -> None:
    made = planned(model(engine=engine), on=box(gb10()))
    assert workers(made) == {"llama-1": (uuid(0),)}
    assert spec(made, "llama-1").reason.endswith("; 100.0 GiB of main memory free there")
    assert made.notes == ()


def test_vllms_fraction_is_of_all_main_memory() -> None:
    limited = replace(gb10(available=60), reserved_bytes=40 * GiB)  # a control group leaves 80 of 120 GiB
    made = planned(model(engine=VLLM, vram_bytes=30 * GiB), on=box(limited))
    argv = spec(made, "llama-1").argv
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.25"
    too_much = planned(model(engine=VLLM, vram_bytes=70 * GiB), on=box(limited))
    assert reason(too_much) == (
        "needs 70.0 GiB (vram); GPU 0 has 60.0 GiB free of 120.0 GiB of main memory (60.0 GiB are in use)"
    )


def test_models_on_the_cpu_and_on_the_gpu_share_it() -> None:
    on_cpu = model(names=("cpu",), gpus=GpuCpu())  # 15.0 GiB of weights
    on_gpu = model(names=("gpu",), gpus=GpuPinned((0,)), vram_bytes=80 * GiB)
    made = planned(on_cpu, on_gpu, on=box(gb10()))
    assert made.fits
    (budget,) = made.gpus
    assert (budget.planned_bytes, budget.free_bytes) == (80 * GiB + 16_060_522_496, 100 * GiB)
    full = planned(on_cpu, replace(on_gpu, vram_bytes=90 * GiB), on=box(gb10()))
    assert reason(full) == (
        "its weights need 15.0 GiB of main memory on the CPU, and 10.0 GiB are left of it, which the GPU uses, too"
    )
    beside = planned(on_cpu, replace(on_gpu, vram_bytes=70 * GiB), on=box(gpu(0)))
    assert beside.gpus[0].planned_bytes == 70 * GiB, "a GPU with memory of its own has nothing to do with it"


def test_two_gpus_on_one_main_memory_have_it_once() -> None:
    made = planned(model(vram_bytes=60 * GiB, replicas=2), on=box(gb10(), gb10(index=1)))
    assert len(workers(made)) == 1
    assert [budget.planned_bytes for budget in made.gpus] == [60 * GiB, 60 * GiB]
    assert "this plan takes 60.0 GiB" in reason(made)


def test_what_runs_already_is_not_counted_twice() -> None:
    first = planned(model(vram_bytes=60 * GiB), on=box(gb10()))
    now = box(gb10(available=40))
    context = PlanningContext(running=first.processes)
    again = planned(
        model(vram_bytes=60 * GiB), model("smollm2", vram_bytes=30 * GiB), on=now, context=context
    )
    assert again.fits
    assert spec(again, "llama-1") == spec(first, "llama-1")


@pytest.mark.parametrize("engine", list(EngineName))
@pytest.mark.parametrize("gpus", [GpuPinned((0,)), GpuPinned((uuid(0),)), GpuAuto()])
def test_a_gpu_of_unknown_memory_takes_what_vram_says(engine: EngineName, gpus: GpuPinned | GpuAuto) -> None:
    command = ("serve", "{port}") if engine is EngineName.COMMAND else ()
    name = "gguf" if engine is EngineName.LLAMACPP else "llama"
    wanted = model(name, engine=engine, gpus=gpus, vram_bytes=20 * GiB, command=command)
    made = planned(wanted, on=box(untold()))
    assert workers(made) == {f"{name}-1": (uuid(0),)}
    worker = spec(made, f"{name}-1")
    assert worker.vram_bytes == 20 * GiB
    assert "--gpu-memory-utilization" not in worker.argv
    assert worker.reason.endswith("how much is free there is not known: Unknown Error")


def test_without_vram_unknown_memory_is_refused_with_the_way_out() -> None:
    text = reason(planned(model(gpus=GpuPinned((0,))), on=box(untold())))
    assert text.endswith(
        "; how much memory GPU 0 has is not known (Unknown Error); write vram: on the model to use it"
    )
    assert reason(planned(model(), on=box(untold()))) == text


def test_auto_prefers_gpus_whose_memory_is_known() -> None:
    made = planned(model(vram_bytes=20 * GiB, replicas=2), on=box(untold(), gpu(1)))
    assert set(workers(made).values()) == {(uuid(1),)}


def test_the_total_that_all_gpus_of_a_name_have_is_a_bound() -> None:
    """The driver gives no figures of an L4, and every L4 has as much."""
    made = planned(model(vram_bytes=15 * GiB, replicas=2, engine=VLLM), on=box(untold(total=24)))
    (worker,) = workers(made)
    argv = spec(made, worker).argv
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.625"
    assert "GPU 0 has 9.0 GiB free of 24.0 GiB" in reason(made)


def test_a_gpu_without_a_uuid_is_named_by_index() -> None:
    for name in ("unknown-0", "1d4ab4ef-6f3c-5d2b-a7c4-3b1f6c0a9e11"):
        nameless = replace(gb10(), uuid=name)
        made = planned(model(), on=box(nameless))
        assert spec(made, "llama-1").mask == "0"


def test_a_mig_instance_of_unknown_memory() -> None:
    parent = mig_gpu(0, 1)
    part = replace(parent.mig[0], total_bytes=0, free_bytes=0, memory=MemoryKind.UNKNOWN)
    inventory = box(replace(parent, mig=(part,)))
    pinned = model("smollm2", gpus=GpuPinned((part.uuid,)), vram_bytes=5 * GiB)
    assert workers(planned(pinned, on=inventory)) == {"smollm2-1": (part.uuid,)}
