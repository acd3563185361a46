"""What stays in main memory, and what is loaded beside the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.engines import registry
from llmlaunch.manifest.types import EngineName
from llmlaunch.models.facts import Companion, CompanionRole, LayerCache, LayerKind, LayerWeights, ModelFacts
from llmlaunch.planning.estimate import estimate
from llmlaunch.planning.offload import offload
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import PlanningContext
from tests.unit.planning.builders import LLAMA, GiB, box, gpu, manifest, model

LLAMACPP, VLLM = registry.get("llamacpp"), registry.get("vllm")
WEIGHTS = 33 * GiB
GGUF = replace(LLAMA, format="gguf", quantisation="Q4_K_M", weight_bytes=WEIGHTS)
MOE = replace(GGUF, layer_weights=(LayerWeights(GiB, GiB // 2),) * 32)


def left(facts: ModelFacts, args: dict[str, Any]) -> tuple[int, int]:
    """Bytes of weights in main memory, and layers whose cache is on the GPU."""
    asked = model(engine=EngineName.LLAMACPP, engine_args=args)
    found = offload(asked, facts, LLAMACPP, 1, WEIGHTS)
    return found.weights, sum(layer.count for layer in found.caches)


@pytest.mark.parametrize(
    ("args", "kept", "layers"),
    [
        ({}, 0, 32),
        ({"n-gpu-layers": 99}, 0, 32),
        ({"ngl": 33}, 0, 32),
        ({"ngl": -1}, 0, 32),
        ({"ngl": "all"}, 0, 32),
        ({"ngl": "20"}, 13 * GiB, 19),
        ({"gpu_layers": 20}, 13 * GiB, 19),  # the output and the last 19
        ({"ngl": 0}, WEIGHTS, 0),
        ({"no-kv-offload": True}, 0, 0),
    ],
)
@pytest.mark.parametrize("facts", [GGUF, MOE], ids=["even", "by-layer"])
def test_layers_on_the_cpu(facts: ModelFacts, args: dict[str, Any], kept: int, layers: int) -> None:
    assert left(facts, args) == (kept, layers)


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        ({"cpu-moe": True}, 16 * GiB),
        ({"n_cpu_moe": 10}, 5 * GiB),
        ({"ncmoe": 10, "ngl": 28}, 5 * GiB + 5 * GiB // 2),  # five whole layers, and the experts of five more
        ({"override-tensor": "exps=CPU"}, 16 * GiB),
        ({"ot": r"blk\.([0-9])\.ffn_.*_exps=CPU"}, 5 * GiB),
        ({"ot": ["ffn_up_exps=CPU", "exps=CUDA0"]}, 32 * (GiB // 6)),
        ({"ot": "ffn_up_exps=CUDA0,exps=CPU"}, 32 * int(GiB // 2 * 2 / 3)),
        ({"ot": "(=CPU"}, 0),
    ],
)
def test_experts_on_the_cpu(args: dict[str, Any], kept: int) -> None:
    assert left(MOE, args)[0] == kept
    assert left(GGUF, {key: value for key, value in args.items() if key != "ngl"})[0] == 0, (
        "no experts that are known of"
    )


def test_layers_of_several_kinds_are_left_out_from_the_first() -> None:
    caches = (
        LayerCache(2, LayerKind.SLIDING, 8, 128, 128, window=128),
        LayerCache(30, kv_heads=8, key_dim=128, value_dim=128),
    )
    asked = model(engine=EngineName.LLAMACPP, engine_args={"ngl": 30})
    found = offload(asked, replace(GGUF, layer_caches=caches), LLAMACPP, 1, WEIGHTS)
    assert found.caches == (replace(caches[1], count=29),)


def test_vllm_keeps_so_much_of_every_gpu() -> None:
    asked = model(engine=EngineName.VLLM, engine_args={"cpu-offload-gb": 4})
    assert offload(asked, LLAMA, VLLM, 2, WEIGHTS).weights == 8 * GiB
    plain, less = (estimate(spec, LLAMA, VLLM, 1) for spec in (model(engine=EngineName.VLLM), asked))
    assert plain
    assert less
    assert dict(plain.parts)["weights"] - dict(less.parts)["weights"] == pytest.approx(4 * GiB * 1.02, abs=2)
    assert less.main_memory == 4 * GiB


def test_the_estimate_and_its_words() -> None:
    asked = model(engine=EngineName.LLAMACPP, engine_args={"ngl": 20})
    found, whole = (
        estimate(asked, MOE, LLAMACPP, 1),
        estimate(replace(asked, engine_args={}), MOE, LLAMACPP, 1),
    )
    assert found
    assert whole
    assert dict(found.parts)["weights"] == 20 * GiB * 102 // 100
    assert dict(found.parts)["KV cache"] == dict(whole.parts)["KV cache"] * 19 // 32
    made = plan(manifest(asked), box(gpu(0)), {"llama": MOE}, PlanningContext())
    assert "13.0 GiB of weights in main memory" in made.processes[1].reason


DRAFT = replace(
    LLAMA,
    source="small",
    weight_bytes=GiB,
    layer_caches=(LayerCache(2, kv_heads=8, key_dim=128, value_dim=128),),
)


def test_what_is_loaded_beside_the_model() -> None:
    args = {"mmproj": "mm.gguf", "model-draft": "small", "lora": ["a", "b"]}
    asked = model(engine=EngineName.LLAMACPP, engine_args=args)
    known = {
        "llama": GGUF,
        "small": DRAFT,
        "mm.gguf": replace(LLAMA, weight_bytes=GiB),
        "a": replace(LLAMA, weight_bytes=5),
    }
    beside = (
        Companion(CompanionRole.PROJECTOR, "mm.gguf", known["mm.gguf"]),
        Companion(CompanionRole.DRAFT, "small", DRAFT),
        Companion(CompanionRole.ADAPTER, "a", known["a"]),
        Companion(CompanionRole.ADAPTER, "b"),
    )
    found, alone = (estimate(asked, replace(GGUF, companions=c), LLAMACPP, 1) for c in (beside, ()))
    assert found
    assert alone
    parts = dict(found.parts)
    assert (parts["projector"], parts["LoRA adapter"]) == (GiB, 5)
    assert parts["draft model"] == GiB * 102 // 100 + dict(alone.parts)["KV cache"] // 16
    assert found.per_gpu == alone.per_gpu + parts["projector"] + parts["LoRA adapter"] + parts["draft model"]

    made = plan(manifest(asked), box(gpu(0)), known, PlanningContext())
    assert made.processes[1].vram_bytes == found.per_gpu
    assert [note for note in made.notes if "LoRA adapter b" in note]
    assert not [note for note in made.notes if "mm.gguf" in note]


@pytest.mark.parametrize(
    ("engine", "args", "counted"),
    [
        ("llamacpp", {}, GiB),
        ("llamacpp", {"no-mmproj": True}, 0),
        ("llamacpp", {"mmproj": "another.gguf"}, 0),
        ("llamacpp", {"no-mmproj-offload": True}, 0),
        ("transformers", {}, 0),
    ],
)
def test_a_projector_beside_the_model_counts_where_it_is_loaded(
    engine: str, args: dict[str, Any], counted: int
) -> None:
    asked = model(engine=EngineName(engine), engine_args=args)
    found = estimate(
        asked, replace(GGUF, projector="mmproj.gguf", projector_bytes=GiB), registry.get(engine), 1
    )
    assert found
    assert dict(found.parts).get("projector", 0) == counted


def test_layers_that_predict_further_tokens_have_a_cache_when_they_run() -> None:
    asked = model(engine=EngineName.VLLM, engine_args={"speculative-config": {"method": "mtp"}})
    facts = replace(LLAMA, draft_layers=2)
    found = estimate(asked, facts, VLLM, 1)
    assert found
    parts = dict(found.parts)
    assert parts["MTP layers"] == parts["KV cache"] // 16
    still = estimate(model(engine=EngineName.VLLM), facts, VLLM, 1)
    assert still
    assert "MTP layers" not in dict(still.parts)
