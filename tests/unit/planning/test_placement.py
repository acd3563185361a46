"""Which device, and what is said about it: one small box per rule."""

from __future__ import annotations

from dataclasses import replace

from llmlaunch.hardware.types import Inventory, LinkKind
from llmlaunch.manifest.types import (
    EngineName,
    GpuAuto,
    GpuCpu,
    GpuPinned,
)
from llmlaunch.planning.estimate import effective_args, learning_key
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import MemoryPromise, PlanningContext
from tests.unit.planning.builders import (
    FACTS,
    VLLM,
    GiB,
    as_used,
    box,
    gpu,
    manifest,
    model,
    nvlink_pairs,
    planned,
    reason,
    spec,
    uuid,
    workers,
)


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


def test_pinned_by_index_and_by_uuid_keeps_the_order() -> None:
    made = planned(model(gpus=GpuPinned((2, uuid(0).upper()))), on=box(*map(gpu, range(3))))
    assert workers(made) == {"llama-1": (uuid(2), uuid(0))}
    assert "as asked" in spec(made, "llama-1").reason


def test_a_pinned_gpu_that_is_too_full_is_refused_with_who_holds_it() -> None:
    made = planned(model(gpus=GpuPinned((1,))), on=box(gpu(0), gpu(1, used=75)))
    assert reason(made) == (
        "needs 20.3 GiB: weights 15.3 + KV cache 4.0 + activations 0.2 + context 0.8; "
        "GPU 1 has 4.5 GiB free of 80.0 GiB (held by python (pid 4711) 75.0 GiB); "
        "if it takes less, write vram: on the model"
    )


def test_what_does_not_fit_anywhere_names_the_way_out() -> None:
    told = reason(planned(model(), on=box(gpu(0, used=75), gpu(1, used=70))))
    assert told.endswith("; if it takes less, write vram: on the model")
    told = reason(planned(model(vram_bytes=60 * GiB), on=box(gpu(0, used=75))))
    assert "write vram:" not in told, "the manifest said so"


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
