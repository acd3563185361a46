"""GPUs that take one process or none, that an engine is too new for, or that are in MIG mode without instances."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmlaunch.hardware.types import ComputeMode, Gpu, GpuProcess
from llmlaunch.manifest.types import EngineName, GpuAuto, GpuPinned
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import MemoryPromise, PlanningContext
from tests.unit.planning.builders import (
    BARE,
    FACTS,
    LLAMA,
    VLLM,
    GiB,
    box,
    gpu,
    manifest,
    mig_gpu,
    model,
    planned,
    reason,
    spec,
    uuid,
    workers,
)

ONE_REPLICA = (
    "GPU 0 is in exclusive-process compute mode, so it takes one replica; nvidia-smi -c 0 lifts that"
)
PROHIBITED = "it is in prohibited compute mode, so it takes no process; nvidia-smi -c 0 lifts that"


def exclusive(index: int) -> Gpu:
    return replace(gpu(index), compute_mode=ComputeMode.EXCLUSIVE)


def prohibited(index: int) -> Gpu:
    return replace(gpu(index), compute_mode=ComputeMode.PROHIBITED)


@pytest.mark.parametrize("gpus", [GpuAuto(), GpuPinned((0,))])
def test_an_exclusive_gpu_takes_one_replica(gpus: GpuAuto | GpuPinned) -> None:
    made = planned(model("smollm2", replicas=2, gpus=gpus), on=box(exclusive(0)))
    assert workers(made) == {"smollm2-1": (uuid(0),)}
    assert reason(made).startswith("replica 2 of 2: needs ")
    assert reason(made).endswith(f"; {ONE_REPLICA}"), "less vram would not help"


def test_it_takes_no_other_model_either() -> None:
    made = planned(model(), model("smollm2"), on=box(exclusive(0)))
    assert list(workers(made)) == ["llama-1"]
    assert ONE_REPLICA in reason(made)


def test_the_second_replica_goes_to_another_gpu() -> None:
    made = planned(model("smollm2", replicas=3), on=box(exclusive(0), exclusive(1), gpu(2)))
    assert sorted(workers(made).values()) == [(uuid(0),), (uuid(1),), (uuid(2),)]
    one_more = planned(model("smollm2", replicas=4), on=box(exclusive(0), exclusive(1), gpu(2)))
    assert sorted(workers(one_more).values())[-2:] == [(uuid(2),), (uuid(2),)]


def test_of_many_exclusive_gpus_a_few_are_named() -> None:
    text = reason(planned(model("smollm2", replicas=7), on=box(*map(exclusive, range(6)))))
    assert text.count("takes one replica") == 4
    assert text.endswith(", the other 2 have less or the same or take no more")
    mixed = box(exclusive(0), gpu(1, total=24, used=20))
    assert "GPU 1 has 3.5 GiB free" in reason(planned(model(replicas=2), on=mixed)), (
        "which has more room or less"
    )


def test_a_command_without_vram_takes_the_place_too() -> None:
    run = model(engine=EngineName.COMMAND, command=("serve", "{port}"), replicas=2)
    made = planned(run, on=box(exclusive(0)))
    assert len(workers(made)) == 1
    assert ONE_REPLICA in reason(made)


def test_tensor_parallelism_over_exclusive_gpus() -> None:
    two = model(engine=VLLM, gpus=GpuAuto(2))
    made = planned(two, on=box(exclusive(0), exclusive(1)))
    assert workers(made) == {"llama-1": (uuid(0), uuid(1))}
    assert not planned(replace(two, replicas=2), on=box(exclusive(0), exclusive(1), exclusive(2))).fits


def test_mps_shares_an_exclusive_gpu() -> None:
    shared = replace(box(exclusive(0)), mps=True)
    assert planned(model("smollm2", replicas=2), on=shared).fits


def test_a_strangers_process_on_an_exclusive_gpu() -> None:
    python = GpuProcess(4711, 1 * GiB, "python")
    taken = replace(exclusive(0), processes=(python,))
    text = reason(planned(model(gpus=GpuPinned((0,))), on=box(taken)))
    assert (
        "GPU 0 is in exclusive-process compute mode, and taken by python (pid 4711) 1.0 GiB; nvidia-smi -c 0 lifts that"
        in text
    )
    desktop = replace(exclusive(0), processes=(replace(python, name="Xorg", computes=False),))
    assert planned(model(), on=box(desktop)).fits, "who only draws is no process that computes"
    coming = PlanningContext(promised=(MemoryPromise(uuid(0), GiB, "other/llama-1"),))
    assert "taken by other/llama-1" in reason(planned(model(), on=box(exclusive(0)), context=coming))


def test_what_runs_on_an_exclusive_gpu_keeps_its_place_or_makes_room() -> None:
    first = planned(model("smollm2"), on=box(exclusive(0)))
    now = box(replace(exclusive(0), processes=(GpuProcess(99, 1 * GiB, "python"),)))
    context = PlanningContext(running=first.processes)
    again = planned(model("smollm2"), on=now, context=context)
    assert again.processes == first.processes
    more = planned(model("smollm2", replicas=2), on=now, context=context)
    assert ONE_REPLICA in reason(more)
    changed = planned(model("smollm2", max_model_len=512), on=now, context=context)
    assert workers(changed) == {"smollm2-1": (uuid(0),)}, "its predecessor ends first"


def test_a_prohibited_gpu_cannot_be_used() -> None:
    alone = box(prohibited(0))
    assert reason(planned(model(engine=VLLM), on=alone)) == (
        f"vllm needs a GPU, and none can be used: GPU 0 cannot be used: {PROHIBITED}; engine transformers runs on the CPU"
    )
    assert reason(planned(model(gpus=GpuPinned((0,))), on=alone)) == f"GPU 0 cannot be used: {PROHIBITED}"
    beside = planned(model(), on=box(prohibited(0), gpu(1)))
    assert workers(beside) == {"llama-1": (uuid(1),)}
    assert beside.notes == (f"GPU 0 (NVIDIA A100-SXM4-80GB) is left out: {PROHIBITED}",)


def test_mig_mode_without_instances_is_said_with_the_way_out() -> None:
    empty = box(mig_gpu(0, 0))
    for wanted in (model(engine=VLLM), model(gpus=GpuPinned((0,)))):
        text = reason(planned(wanted, on=empty))
        assert (
            "GPU 0 cannot be used: it is in MIG mode and has no instances; create some (nvidia-smi mig -cgi"
            in text
        )
        assert "nvidia-smi -mig 0" in text
    on_cpu = planned(model("smollm2"), on=empty)
    assert on_cpu.fits
    assert any("MIG mode and has no instances" in note for note in on_cpu.notes)


def test_gpus_that_share_a_reason_are_named_together() -> None:
    why = "this process has no permission to use it"
    made = planned(model(), on=box(gpu(0), *(replace(gpu(i), lost=why) for i in (1, 2, 3))))
    assert made.notes == (f"GPUs 1, 2 and 3 are left out: {why}",)


def with_capability(major: int, minor: int, name: str = "A GPU", index: int = 0) -> Gpu:
    return replace(gpu(index, name=name), compute_capability=(major, minor))


@pytest.mark.parametrize(
    ("engine", "has", "needs"),
    [("vllm", (6, 1), "7.0"), ("sglang", (7, 0), "7.5"), ("sglang", (6, 0), "7.5")],
)
@pytest.mark.parametrize("gpus", [GpuAuto(), GpuPinned((0,))])
def test_gpus_that_are_too_old_for_an_engine(
    engine: str, has: tuple[int, int], needs: str, gpus: GpuAuto | GpuPinned
) -> None:
    old = box(with_capability(*has))
    text = reason(planned(model(engine=EngineName(engine), gpus=gpus), on=old))
    assert text == (
        f"GPU 0 (A GPU) has compute capability {has[0]}.{has[1]}, and {engine} needs {needs}; "
        "engine: transformers and, for GGUF files, llamacpp run on older GPUs"
    )
    assert planned(model(gpus=gpus), on=old).fits


@pytest.mark.parametrize(("engine", "has"), [("vllm", (7, 0)), ("vllm", (12, 1)), ("sglang", (7, 5))])
def test_gpus_that_are_just_new_enough(engine: str, has: tuple[int, int]) -> None:
    made = planned(model(engine=EngineName(engine)), on=box(with_capability(*has)))
    assert made.fits
    assert made.notes == ()


def test_a_capability_that_is_not_told_refuses_nothing() -> None:
    assert gpu(0).compute_capability is None
    assert planned(model(engine=VLLM, dtype="bfloat16"), on=box(gpu(0))).fits


def test_auto_takes_the_gpu_that_suits() -> None:
    mixed = box(with_capability(6, 0, "Tesla P100"), with_capability(8, 0, "A100", 1))
    assert workers(planned(model(engine=VLLM), on=mixed)) == {"llama-1": (uuid(1),)}
    text = reason(planned(model(engine=VLLM, replicas=2, vram_bytes=60 * GiB), on=mixed))
    assert "GPU 1 has 19.5 GiB free" in text
    assert "GPU 0 (Tesla P100) has compute capability 6.0, and vllm needs 7.0" in text
    both = reason(planned(model(engine=VLLM, gpus=GpuAuto(2)), on=mixed))
    assert both.startswith("GPU 0 (Tesla P100) has compute capability 6.0")


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_bfloat16_by_name_needs_ampere(engine: str) -> None:
    wanted = model(engine=EngineName(engine), dtype="bfloat16")
    assert reason(planned(wanted, on=box(with_capability(7, 5, "Tesla T4")))) == (
        "GPU 0 (Tesla T4) has compute capability 7.5, and bfloat16 needs 8.0; write dtype: float16, or leave dtype out"
    )
    assert planned(wanted, on=box(with_capability(8, 0))).fits
    # Left to itself, an engine takes float16 on such a GPU.
    assert planned(replace(wanted, dtype="auto"), on=box(with_capability(7, 5))).fits
    assert planned(model(dtype="bfloat16"), on=box(with_capability(7, 5))).fits


def test_fp8_weights() -> None:
    facts = {**FACTS, "llama": replace(LLAMA, quantisation="fp8")}
    wanted = model(engine=VLLM)

    def on(has: Gpu, engine: EngineName = VLLM) -> tuple[bool, str]:
        made = plan(manifest(replace(wanted, engine=engine)), box(has), facts, PlanningContext())
        return made.fits, " ".join((*made.notes, *(rejection.reason for rejection in made.rejections)))

    assert on(with_capability(8, 9)) == (True, "")
    assert on(with_capability(8, 0)) == (
        True,
        "llama: GPU 0 (A GPU) has compute capability 8.0, and calculates in fp8 from 8.9 on: its fp8 weights save memory "
        "there, but not time",
    )
    assert on(with_capability(7, 0)) == (
        False,
        "GPU 0 (A GPU) has compute capability 7.0, and vllm needs 7.5 for fp8 weights; use the model in another format, "
        "or on another GPU",
    )
    assert not on(with_capability(7, 5), EngineName.SGLANG)[0]
    assert on(with_capability(8, 0), EngineName.TRANSFORMERS) == (True, "")


def test_fp8_by_a_flag_counts_too() -> None:
    online = model(engine=VLLM, engine_args={"quantization": "fp8"})
    assert "fp8 weights" in reason(planned(online, on=box(with_capability(7, 0))))
    cache = model(engine=VLLM, engine_args={"kv_cache_dtype": "fp8_e4m3"})
    (note,) = planned(cache, on=box(with_capability(8, 6))).notes
    assert note.endswith("calculates in fp8 from 8.9 on: kv_cache_dtype fp8_e4m3 may be refused there")


def test_no_capability_is_asked_of_a_cpu() -> None:
    assert planned(model(), on=BARE).fits
    assert spec(planned(model(), on=BARE), "llama-1").gpus == ()
