"""Which device, and what is said about it: one small box per rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.errors import ManifestError
from llmlaunch.hardware.types import Gpu, GpuProcess, Inventory, LinkKind
from llmlaunch.manifest.types import (
    ApiSpec,
    ControllerSpec,
    EngineName,
    GpuAuto,
    GpuCpu,
    GpuPinned,
    ModelSpec,
    Position,
    Restarts,
)
from llmlaunch.planning.estimate import effective_args, learning_key
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import Component, MemoryPromise, Plan, PlanningContext, ProcessSpec
from tests.unit.planning.builders import (
    FACTS,
    LLAMA,
    GiB,
    as_used,
    box,
    gpu,
    manifest,
    mig_gpu,
    model,
    nvlink_pairs,
    uuid,
    workers,
)

VLLM = EngineName.VLLM


def planned(*models: ModelSpec, on: Inventory, context: PlanningContext | None = None) -> Plan:
    return plan(manifest(*models), on, FACTS, context or PlanningContext())


def spec(made: Plan, name: str) -> ProcessSpec:
    return next(s for s in made.processes if s.name == name)


def reason(made: Plan) -> str:
    (rejection,) = made.rejections
    return rejection.reason


# auto ---------------------------------------------------------------------------------------------------------------


def test_auto_takes_the_tightest_gpu_that_fits() -> None:
    made = planned(model(vram_bytes=20 * GiB), on=box(gpu(0), gpu(1, used=50), gpu(2, used=70)))
    assert workers(made) == {"llama-1": (uuid(1),)}
    assert spec(made, "llama-1").reason == (
        "on GPU 1 (NVIDIA A100-SXM4-80GB), the best of 2 that fit: needs 20.0 GiB (vram); 29.5 GiB free there"
    )


def test_replicas_of_one_model_are_spread_before_they_are_packed() -> None:
    made = planned(model(replicas=4, vram_bytes=20 * GiB), on=box(gpu(0), gpu(1), gpu(2, used=50)))
    places = [s.gpus[0] for s in made.processes if s.gpus]
    assert sorted(places[:3]) == [uuid(0), uuid(1), uuid(2)]
    assert places[3] in (uuid(0), uuid(1))


def test_different_models_share_a_gpu() -> None:
    made = planned(model("smollm2"), model(names=("other",)), on=box(gpu(0)))
    assert workers(made) == {"smollm2-1": (uuid(0),), "other-1": (uuid(0),)}
    assert made.gpus[0].planned_bytes == sum(s.vram_bytes for s in made.processes)


def test_the_largest_is_placed_first_whatever_the_order_in_the_file() -> None:
    small, large = model("smollm2", vram_bytes=20 * GiB), model(vram_bytes=70 * GiB)
    made = planned(small, large, on=box(gpu(0), gpu(1, 24, name="NVIDIA L4")))
    assert made.fits
    assert list(workers(made)) == ["smollm2-1", "llama-1"]
    # Two that would both fit the small GPU's room: the pinned one comes before all others.
    pinned = model("smollm2", names=("p",), vram_bytes=70 * GiB, gpus=GpuPinned((0,)))
    made = planned(large, pinned, on=box(gpu(0), gpu(1)))
    assert workers(made) == {"llama-1": (uuid(1),), "p-1": (uuid(0),)}


def test_too_large_for_every_gpu_is_refused_with_the_numbers() -> None:
    made = planned(model(), on=box(gpu(0, used=70), gpu(1, 24, 13, "NVIDIA L4")))
    assert "llama-1" not in workers(made)
    text = reason(made)
    assert "needs 20.3 GiB: weights 15.3 + KV cache 4.0 + activations 0.2 + context 0.8" in text
    assert "GPU 0 has 9.5 GiB free of 80.0 GiB (held by python (pid 4711) 70.0 GiB)" in text
    assert "GPU 1 has 10.5 GiB free of 24.0 GiB" in text


def test_a_refusal_says_when_more_gpus_would_help() -> None:
    text = reason(planned(model(), on=box(*(gpu(i, 16, 0, "T4") for i in range(2)))))
    assert "with gpu_count: 2 it needs 10.7 GiB on each, which fits" in text


def test_a_refusal_names_the_replicas() -> None:
    made = planned(model(replicas=4, vram_bytes=50 * GiB), on=box(gpu(0), gpu(1)))
    assert reason(made).startswith("replicas 3 and 4 of 4: needs 50.0 GiB (vram)")
    assert "this plan takes 50.0 GiB" in reason(made)


def test_what_was_learned_decides() -> None:
    key = learning_key("llama", "vllm", effective_args(model(engine=VLLM), 1), "NVIDIA A100-SXM4-80GB")
    made = planned(model(engine=VLLM), on=box(gpu(0)), context=PlanningContext(measured_vram={key: 17 * GiB}))
    worker = spec(made, "llama-1")
    assert worker.vram_bytes == 17 * GiB
    assert worker.learning_key == key
    assert "needs 17.0 GiB (measured in an earlier run)" in worker.reason


def test_a_figure_from_the_manifest_teaches_nothing() -> None:
    made = planned(model(vram_bytes=GiB), model("smollm2", gpus=GpuCpu()), on=box(gpu(0)))
    assert [s.learning_key for s in made.processes] == ["", "", "", ""]


def test_unknown_size_asks_for_vram() -> None:
    blank = replace(FACTS["llama"], weight_bytes=None, parameters=None)
    made = plan(manifest(model()), box(gpu(0)), {"llama": blank}, PlanningContext())
    assert "write vram: on the model" in reason(made)


# several GPUs ---------------------------------------------------------------------------------------------------------


def test_a_pair_joined_by_nvlink_is_chosen() -> None:
    links = nvlink_pairs((0, 3), (1, 2), among=4)
    made = planned(
        model(engine=VLLM, gpus=GpuAuto(2), replicas=2), on=box(*(gpu(i) for i in range(4)), links=links)
    )
    assert workers(made) == {"llama-1": (uuid(0), uuid(3)), "llama-2": (uuid(1), uuid(2))}
    assert (
        "GPUs 0 and 3 (NVIDIA A100-SXM4-80GB), joined by NVLink: needs 2 × 12.2 GiB"
        in spec(made, "llama-1").reason
    )


def test_the_worst_link_of_a_set_counts_first() -> None:
    # 0-1-2 are a chain of NVLinks with a slow way 0-2; 3, 4 and 5 all share one PCIe switch.
    links = nvlink_pairs((0, 1), (1, 2), among=6)
    switch = {(3, 4), (3, 5), (4, 5)}
    links = tuple(
        replace(link, kind=LinkKind.SWITCH)
        if (int(link.a[4:12], 16), int(link.b[4:12], 16)) in switch
        else link
        for link in links
    )
    made = planned(model(gpus=GpuAuto(3)), on=box(*(gpu(i) for i in range(6)), links=links))
    assert workers(made) == {"llama-1": (uuid(3), uuid(4), uuid(5))}


def test_gpus_of_one_kind_are_taken_together() -> None:
    made = planned(
        model(vram_bytes=20 * GiB, gpus=GpuAuto(2)),
        on=box(gpu(0, 24, name="L4"), gpu(1), gpu(2, 24, name="L4"), gpu(3)),
    )
    assert workers(made)["llama-1"] == (uuid(0), uuid(2))
    mixed = planned(
        model(vram_bytes=20 * GiB, gpus=GpuAuto(3)), on=box(gpu(0, 24, name="L4"), gpu(1), gpu(2))
    )
    assert len(workers(mixed)["llama-1"]) == 3


def test_more_gpus_than_there_are() -> None:
    made = planned(model(gpus=GpuAuto(4)), on=box(gpu(0), gpu(1)))
    assert reason(made).startswith("needs 4 GPUs, and 2 GPUs can be used")


def test_heads_that_do_not_divide() -> None:
    assert "attention heads" in reason(
        planned(model(engine=VLLM, gpus=GpuAuto(3)), on=box(*map(gpu, range(3))))
    )


def test_vram_is_split_evenly_rounding_up() -> None:
    made = planned(model(vram_bytes=18 * GiB + 1, gpus=GpuAuto(2)), on=box(gpu(0), gpu(1)))
    assert spec(made, "llama-1").vram_per_gpu == (9 * GiB + 1, 9 * GiB + 1)


# pinned ---------------------------------------------------------------------------------------------------------------


def test_pinned_by_index_and_by_uuid_keeps_the_order() -> None:
    made = planned(model(gpus=GpuPinned((2, uuid(0).upper()))), on=box(*map(gpu, range(3))))
    assert workers(made) == {"llama-1": (uuid(2), uuid(0))}
    assert "as asked" in spec(made, "llama-1").reason


def test_a_pinned_gpu_that_is_too_full_is_refused_with_who_holds_it() -> None:
    made = planned(model(gpus=GpuPinned((1,))), on=box(gpu(0), gpu(1, used=75)))
    assert reason(made) == (
        "needs 20.3 GiB: weights 15.3 + KV cache 4.0 + activations 0.2 + context 0.8; "
        "GPU 1 has 4.5 GiB free of 80.0 GiB (held by python (pid 4711) 75.0 GiB)"
    )


def test_a_pinned_gpu_that_is_not_there() -> None:
    made = planned(model(gpus=GpuPinned((7,))), on=box(gpu(0)))
    assert reason(made) == f"there is no GPU 7 here; there is GPU 0 ({uuid(0)})"
    made = planned(model(gpus=GpuPinned(("GPU-nope",))), on=Inventory(note="no NVIDIA driver: not found"))
    assert reason(made) == ("there is no GPU-nope here; there is no usable GPU (no NVIDIA driver: not found)")


def test_one_device_by_two_names() -> None:
    assert reason(planned(model(gpus=GpuPinned((0, uuid(0)))), on=box(gpu(0)))) == "lists one device twice"


def test_memory_that_nobody_is_known_to_hold() -> None:
    hidden = replace(gpu(0, used=75), processes=None)
    text = reason(planned(model(gpus=GpuPinned((0,))), on=box(hidden)))
    assert "in use by processes that the driver does not name" in text


# no GPU ---------------------------------------------------------------------------------------------------------------

BARE = Inventory(note="no NVIDIA driver: libnvidia-ml.so.1 not found")


def test_auto_without_gpus_is_the_cpu_with_a_note() -> None:
    made = planned(model("smollm2", replicas=2), on=BARE)
    assert made.fits
    worker = spec(made, "smollm2-1")
    assert (worker.gpus, worker.mask, worker.vram_bytes) == ((), "", 0)
    assert worker.argv[worker.argv.index("--device") + 1] == "cpu"
    assert worker.reason == "on the CPU because no GPU can be used: weights 257 MiB of main memory"
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


def test_a_probe_of_ones_own() -> None:
    worker = spec(planned(model(ready_probe="/warm", start_timeout_s=7, stop_grace_s=3), on=BARE), "llama-1")
    assert (worker.ready_path, worker.live_path) == ("/warm", "/health")
    assert (worker.start_timeout_s, worker.stop_grace_s) == (7, 3)
    worker = spec(planned(model(probe="/well"), on=BARE), "llama-1")
    assert (worker.ready_path, worker.live_path) == ("/well", "/well")
    worker = spec(planned(model(probe="", probe_timeout_s=30.0, probe_failures=7), on=BARE), "llama-1")
    assert (worker.ready_path, worker.live_path) == ("/ready", "")
    assert (worker.probe_timeout_s, worker.probe_failures) == (30.0, 7)
    own = model(engine=EngineName.COMMAND, command=("serve",), probe="", restart=Restarts(3, 7.0))
    worker = spec(planned(own, on=BARE), "llama-1")
    assert (worker.ready_path, worker.live_path) == ("", "")
    assert (worker.restart_max, worker.restart_delay_s) == (3, 7.0)


# other deployments ----------------------------------------------------------------------------------------------------


def test_what_was_promised_to_others_is_not_given_away() -> None:
    run = model(engine=EngineName.COMMAND, command=("serve",), vram_bytes=20 * GiB)
    free = box(gpu(0, total=24), gpu(1, total=24))
    promised = (MemoryPromise(uuid(0), 10 * GiB, "other/llama-1"),)
    assert spec(planned(run, on=free, context=PlanningContext(promised=promised)), "llama-1").gpus == (
        uuid(1),
    )
    full = (*promised, MemoryPromise(uuid(1), 5 * GiB, "other/llama-2"))
    text = reason(planned(run, on=free, context=PlanningContext(promised=full)))
    assert "other/llama-1, which has yet to load 10.0 GiB" in text
    assert "other/llama-2, which has yet to load 5.0 GiB" in text


# MIG, lost, masked ----------------------------------------------------------------------------------------------------


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


# what runs --------------------------------------------------------------------------------------------------------------


def test_what_a_replica_holds_is_free_for_itself_and_taken_for_others() -> None:
    inventory = box(gpu(0, 40))
    first = planned(model(vram_bytes=30 * GiB), on=inventory)
    context = PlanningContext(running=first.processes)
    loaded = as_used(inventory, first)
    again = planned(
        model(vram_bytes=30 * GiB), model("smollm2", vram_bytes=20 * GiB), on=loaded, context=context
    )
    assert workers(again) == {"llama-1": (uuid(0),)}
    assert "this plan takes 30.0 GiB" in reason(again)
    assert (again.gpus[0].free_bytes, again.gpus[0].planned_bytes) == (first.gpus[0].free_bytes, 30 * GiB)
    # Replaced instead of kept, its memory is there for its successor.
    changed = planned(model(vram_bytes=35 * GiB), on=loaded, context=context)
    assert changed.fits
    assert spec(changed, "llama-1").vram_bytes == 35 * GiB


def test_a_replica_that_holds_more_than_its_claim_keeps_it_from_others() -> None:
    inventory = box(gpu(0, 40))
    first = planned(model(vram_bytes=10 * GiB), on=inventory)
    grown = replace(gpu(0, 40), used_bytes=30 * GiB, free_bytes=40 * GiB - GiB // 2 - 30 * GiB)
    context = PlanningContext(running=first.processes, used_vram={"llama-1": {uuid(0): 30 * GiB}})
    again = planned(
        model(vram_bytes=10 * GiB), model("smollm2", vram_bytes=15 * GiB), on=box(grown), context=context
    )
    assert workers(again) == {"llama-1": (uuid(0),)}
    assert not again.fits


def test_a_replica_that_is_still_loading_sells_nothing_twice() -> None:
    """Where the driver does not tell who holds what, nothing can be held that is not in use."""
    inventory = box(replace(gpu(0, 40), processes=None))
    first = planned(model(vram_bytes=30 * GiB), on=inventory)
    second = model("smollm2", vram_bytes=20 * GiB)
    again = planned(
        model(vram_bytes=30 * GiB), second, on=inventory, context=PlanningContext(running=first.processes)
    )
    assert workers(again) == {"llama-1": (uuid(0),)}
    assert not again.fits


def test_a_new_figure_from_learning_restarts_nobody() -> None:
    first = planned(model(engine=VLLM), on=box(gpu(0)))
    context = PlanningContext(
        running=first.processes, measured_vram={spec(first, "llama-1").learning_key: 30 * GiB}
    )
    assert (
        planned(model(engine=VLLM), on=as_used(box(gpu(0)), first), context=context).processes
        == first.processes
    )


def test_a_replica_on_a_gpu_that_was_lost_moves() -> None:
    first = planned(model(gpus=GpuAuto(1)), on=box(gpu(0), gpu(1)))
    assert workers(first) == {"llama-1": (uuid(0),)}
    broken = box(replace(gpu(0), lost="GPU is lost"), gpu(1))
    again = planned(model(gpus=GpuAuto(1)), on=broken, context=PlanningContext(running=first.processes))
    assert workers(again) == {"llama-1": (uuid(1),)}


def test_a_replica_that_is_pinned_elsewhere_moves() -> None:
    first = planned(model(), on=box(gpu(0), gpu(1)))
    again = planned(
        model(gpus=GpuPinned((1,))), on=box(gpu(0), gpu(1)), context=PlanningContext(running=first.processes)
    )
    assert workers(again) == {"llama-1": (uuid(1),)}


# the rest of a spec -----------------------------------------------------------------------------------------------------


def test_secrets_are_known_by_name_and_by_value() -> None:
    env = {
        "HF_TOKEN": "x",
        "SAFE": "plain",
        "URL": "https://u:hunter2secret@h",
        "EXACT": "pin",
        "PINS": "pins",
    }
    wanted = replace(manifest(model(env=env)), secrets=frozenset({"hunter2secret", "pin", ""}))
    worker = spec(plan(wanted, BARE, FACTS, PlanningContext()), "llama-1")
    assert worker.secret_env == ("EXACT", "HF_TOKEN", "URL")
    assert worker.shown_env["SAFE"] == "plain"


def test_the_controller_and_the_api() -> None:
    wanted = replace(
        manifest(model()),
        controller=ControllerSpec(host="0.0.0.0", open_registration=True),
        api=ApiSpec(
            host="::",
            api_keys_file="/k",
            api_keys_env="LAB_KEYS",
            max_body_bytes=9,
            max_bodies_bytes=11,
            cors_origins=("https://a", "*"),
            trusted_proxies=("10.0.0.0/8", "::1"),
            allowed_hosts=("a.example",),
            access_log=True,
            processes=3,
            tls_cert="/c",
            tls_key="/k2",
        ),
    )
    made = plan(wanted, BARE, FACTS, PlanningContext(python="/py", env={"LAB_KEYS": "sk-1"}))
    assert spec(made, "controller").argv == (
        "/py", "-m", "llmlaunch", "controller", "--host", "0.0.0.0", "--port", "21001",
        "--dispatch-method", "shortest_queue", "--open-registration",
    )  # fmt: skip
    api = spec(made, "api")
    assert api.argv == (
        "/py", "-m", "llmlaunch", "api", "--host", "::", "--port", "8000",
        "--controller-address", "http://127.0.0.1:21001", "--api-keys-file", "/k", "--api-keys-env", "LAB_KEYS",
        "--max-body-bytes", "9", "--stop-grace", "10", "--max-bodies-bytes", "11",
        "--cors-origin", "https://a", "--cors-origin", "*", "--allowed-host", "a.example",
        "--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "::1",
        "--access-log", "--processes", "3", "--tls-cert", "/c", "--tls-key", "/k2",
    )  # fmt: skip
    assert api.address == "https://[::1]:8000"
    assert api.env["LAB_KEYS"] == "sk-1"
    assert api.shown_env["LAB_KEYS"] == "***"
    assert all(s.needs == () for s in made.processes)


@pytest.mark.parametrize(
    ("api", "noted"),
    [
        (ApiSpec(), False),
        (ApiSpec(host="localhost"), False),
        (ApiSpec(host="::1"), False),
        (ApiSpec(host="0.0.0.0"), True),
        (ApiSpec(host="::"), True),
        (ApiSpec(host="192.168.1.5"), True),
        (ApiSpec(host="0.0.0.0", api_keys_file="/k"), False),
        (ApiSpec(host="0.0.0.0", api_keys_env="KEYS"), False),
    ],
)
def test_an_endpoint_that_is_open_to_everybody_is_noted(api: ApiSpec, noted: bool) -> None:
    context = PlanningContext(local_addresses=frozenset({"192.168.1.5"}))
    made = plan(replace(manifest(model()), api=api), BARE, FACTS, context)
    assert any("anyone who can reach this machine" in note for note in made.notes) == noted


def test_the_api_outlasts_the_longest_grace_of_its_models() -> None:
    """It ends open streams itself, with an error that clients can see; killed at the same moment it could not."""
    made = plan(
        manifest(model(stop_grace_s=45.0), model("smollm2", stop_grace_s=1.0)), BARE, FACTS, PlanningContext()
    )
    api = spec(made, "api")
    assert api.argv[api.argv.index("--stop-grace") + 1] == "45"
    assert api.stop_grace_s == 48.0


def test_all_that_the_engines_cannot_do_is_said_at_once_with_its_place() -> None:
    where = Position("/srv/deploy.yaml", 7, 5)
    bad = model(engine=VLLM, engine_args={"port": 1}, env={"CUDA_VISIBLE_DEVICES": "0"}, position=where)
    worse = model("smollm2", engine_args={"device": "cpu"})
    with pytest.raises(ManifestError) as error:
        planned(bad, worse, on=BARE)
    first, second, third = error.value.problems
    assert str(first).startswith("/srv/deploy.yaml:7:5: model llama: engine_args: port is set by the plan")
    assert "env: CUDA_VISIBLE_DEVICES is set by the plan" in second.message
    assert "device" in third.message
    assert error.value.exit_code == 2


def test_sglang_gets_the_tokens_that_its_claim_has_room_for() -> None:
    worker = spec(planned(model(engine=EngineName.SGLANG), on=box(gpu(0))), "llama-1")
    assert worker.argv[worker.argv.index("--max-total-tokens") + 1] == str(8 * 4096)


def test_processes_on_a_gpu_are_named_largest_first() -> None:
    crowd = tuple(GpuProcess(pid, pid * GiB, "p") for pid in range(1, 6))
    full: Gpu = replace(gpu(0, used=70), processes=crowd)
    text = reason(planned(model(gpus=GpuPinned((0,))), on=box(full)))
    assert "held by p (pid 5) 5.0 GiB, p (pid 4) 4.0 GiB, p (pid 3) 3.0 GiB and 2 more" in text


@pytest.mark.parametrize(
    ("engine", "more", "expected"),
    [
        (EngineName.LLAMACPP, {}, 4),
        (EngineName.LLAMACPP, {"max_concurrency": 9}, 9),
        (EngineName.VLLM, {}, 64),
        (EngineName.VLLM, {"engine_args": {"max_num_seqs": 7}}, 7),
        (EngineName.SGLANG, {"engine_args": {"max-running-requests": 5}}, 5),
        (EngineName.COMMAND, {"command": ("serve",), "gpus": GpuCpu()}, None),
        (EngineName.COMMAND, {"command": ("serve",), "gpus": GpuCpu(), "max_concurrency": 2}, 2),
        # It says so itself when it registers.
        (EngineName.TRANSFORMERS, {}, None),
    ],
)
def test_gateways_hear_how_many_requests_an_engine_works_on_at_a_time(
    engine: EngineName, more: dict[str, Any], expected: int | None
) -> None:
    facts = {"llama": replace(LLAMA, format="gguf") if engine is EngineName.LLAMACPP else LLAMA}
    made = plan(manifest(model(engine=engine, **more)), box(gpu(0)), facts, PlanningContext())
    (worker,) = (spec for spec in made.processes if spec.component is Component.WORKER)
    assert worker.max_concurrency == expected
