"""Boxes without a GPU, and models that want none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmlaunch.manifest.types import (
    EngineName,
    GpuAuto,
    GpuCpu,
)
from llmlaunch.planning.types import PlanningContext
from tests.unit.planning.builders import (
    BARE,
    GiB,
    box,
    gpu,
    model,
    planned,
    reason,
    spec,
    uuid,
)


def test_auto_without_gpus_is_the_cpu_with_a_note() -> None:
    made = planned(model("smollm2", replicas=2), on=BARE)
    assert made.fits
    worker = spec(made, "smollm2-1")
    assert (worker.gpus, worker.mask, worker.vram_bytes) == ((), "", 0)
    assert worker.argv[worker.argv.index("--device") + 1] == "cpu"
    assert worker.reason == (
        "on the CPU because no GPU can be used: weights 257 MiB of main memory, 513 MiB if float32 is faster"
    )


@pytest.mark.parametrize(("dtype", "weights"), [("bfloat16", "257 MiB"), ("float32", "513 MiB")])
def test_a_type_that_the_manifest_sets_is_the_one_that_is_counted(dtype: str, weights: str) -> None:
    made = planned(model("smollm2", dtype=dtype), on=BARE)
    assert spec(made, "smollm2-1").reason.endswith(f": weights {weights} of main memory")
    assert made.notes == ("smollm2 runs on the CPU: no NVIDIA driver: libnvidia-ml.so.1 not found",)


def test_weights_larger_than_main_memory_are_refused_on_the_cpu() -> None:
    small = PlanningContext(main_memory=8 * GiB)
    assert reason(planned(model(), on=BARE, context=small)) == (
        "its weights need 15.0 GiB of main memory on the CPU, and this machine has 8.0 GiB"
    )
    assert not planned(model(gpus=GpuCpu()), on=box(gpu(0)), context=small).fits
    assert planned(model(), on=box(gpu(0)), context=small).fits
    assert planned(model(), on=BARE, context=PlanningContext(main_memory=16 * GiB)).fits


def test_cpu_on_a_box_with_gpus_is_no_note() -> None:
    made = planned(model("smollm2", gpus=GpuCpu()), on=box(gpu(0)))
    assert made.notes == ()
    assert spec(made, "smollm2-1").env["CUDA_VISIBLE_DEVICES"] == ""
    assert spec(made, "smollm2-1").reason.startswith("on the CPU as asked")


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_engines_that_need_a_gpu_are_refused_without_one(engine: str) -> None:
    text = reason(planned(model(engine=EngineName(engine)), on=BARE))
    assert text.startswith(f"{engine} needs a GPU, and none can be used: no NVIDIA driver")
    assert planned(model(engine=EngineName(engine), gpus=GpuCpu()), on=BARE).fits


def test_gpu_count_without_gpus_is_refused() -> None:
    assert reason(planned(model(gpus=GpuAuto(1)), on=BARE)).startswith("needs 1 GPU (gpu_count)")


def test_a_command_runs_anywhere_and_claims_what_it_says() -> None:
    run = model(engine=EngineName.COMMAND, command=("serve", "{port}"), probe="/up")
    bare = spec(planned(run, on=BARE), "llama-1")
    assert (bare.mask, bare.argv, bare.self_registering) == ("", ("serve", "21002"), False)
    assert (bare.ready_path, bare.live_path) == ("/up", "/up")
    nothing = spec(planned(run, on=box(gpu(0, used=9), gpu(1))), "llama-1")
    assert (nothing.gpus, nothing.vram_bytes) == ((uuid(1),), 0)
    assert "the emptiest: no `vram` declared: no GPU memory is reserved; 79.5 GiB free" in nothing.reason
    claims = spec(planned(replace(run, vram_bytes=GiB), on=box(gpu(0, used=9), gpu(1))), "llama-1")
    assert (claims.gpus, claims.vram_bytes, claims.mask) == ((uuid(0),), GiB, "0")


def test_a_command_that_claims_vram_is_not_started_without_a_gpu() -> None:
    run = model(engine=EngineName.COMMAND, command=("serve", "{port}"), vram_bytes=18 * GiB)
    assert reason(planned(run, on=BARE)) == (
        "needs a GPU, 18.0 GiB of it (vram), and none can be used: no NVIDIA driver: libnvidia-ml.so.1 not found; "
        "gpus: cpu starts it without one"
    )
    assert planned(replace(run, gpus=GpuCpu()), on=BARE).fits
    # Of the built-in engine it is known that it runs on the CPU, and vram is only a bound on what it takes of a GPU.
    assert planned(model("smollm2", vram_bytes=GiB), on=BARE).fits
