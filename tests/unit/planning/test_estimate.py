"""The VRAM formula against known figures, and which figure beats which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.engines import registry
from llmlaunch.manifest.types import EngineName
from llmlaunch.models.facts import LayerCache, LayerKind, ModelFacts, ModelKind
from llmlaunch.planning.estimate import (
    Origin,
    effective_args,
    estimate,
    kv_room,
    kv_tokens,
    learning_key,
    need,
    weight_bytes,
)
from llmlaunch.planning.formatting import sizes
from llmlaunch.planning.kv_cache import Room
from tests.unit.planning.builders import LLAMA, SMOLLM, GiB, MiB, model

VLLM = registry.get("vllm")
TRANSFORMERS = registry.get("transformers")
vllm = model(engine=EngineName.VLLM)


def test_the_whole_formula_for_llama_3_8b_on_vllm() -> None:
    planned = estimate(vllm, LLAMA, VLLM, 1)
    assert planned
    parts = dict(planned.parts)
    assert parts["weights"] == 16_060_522_496 * 102 // 100
    assert parts["KV cache"] == 8 * 4096 * (128 << 10)  # a pool for 8 sequences of 4096 tokens
    assert parts["activations"] == (2048 * (4 * 4096 + 2 * 14336) * 2 + 64 * 128_256 * 12) * 12 // 10
    assert parts["context"] == (500 << 20) + 3 * GiB // 2


def test_tensor_parallelism_shares_all_but_the_overhead() -> None:
    one, two = estimate(vllm, LLAMA, VLLM, 1), estimate(vllm, LLAMA, VLLM, 2)
    assert one
    assert two
    assert one.per_gpu / 2 < two.per_gpu < one.per_gpu * 0.7
    assert dict(two.parts)["context"] == dict(one.parts)["context"] + (300 << 20)
    assert two.total == 2 * two.per_gpu


def test_the_pool_holds_at_least_one_sequence_at_full_length() -> None:
    long = replace(LLAMA, context_length=131_072)
    asked = replace(vllm, max_model_len=131_072)
    assert kv_room(asked, long, VLLM) == Room(1, 131_072, 64)
    few = replace(vllm, max_concurrency=2, max_model_len=1000)
    assert kv_room(few, LLAMA, VLLM) == Room(2, 1000, 2)
    # Slots are not shared: llama.cpp takes every one at full length.
    llama = model(engine=EngineName.LLAMACPP, max_concurrency=16, max_model_len=4096)
    assert kv_room(llama, LLAMA, registry.get("llamacpp")) == Room(16, 4096, 16)


def test_a_claim_buys_the_tokens_that_it_was_planned_for() -> None:
    planned = estimate(vllm, LLAMA, VLLM, 1)
    assert planned
    assert kv_tokens(vllm, LLAMA, VLLM, 1, planned.per_gpu) == 8 * 4096
    assert kv_tokens(vllm, LLAMA, VLLM, 1, planned.per_gpu + GiB) == 8 * 4096 + GiB // (128 << 10)
    assert kv_tokens(vllm, LLAMA, VLLM, 1, GiB) == 0
    assert kv_tokens(vllm, replace(LLAMA, layer_caches=()), VLLM, 1, GiB) is None


@pytest.mark.parametrize(
    ("changes", "facts", "engine", "expected"),
    [
        ({}, LLAMA, "transformers", 16_060_522_496),
        ({"dtype": "float32"}, LLAMA, "transformers", 8_030_261_248 * 4),
        ({}, replace(LLAMA, dtype="float32", weight_bytes=32_121_044_992), "transformers", 32_121_044_992),
        ({}, replace(LLAMA, dtype="float32", weight_bytes=32_121_044_992), "vllm", 8_030_261_248 * 2),
        ({"dtype": "float16"}, replace(LLAMA, quantisation="awq", weight_bytes=5 * GiB), "vllm", 5 * GiB),
        # The built-in worker unpacks GGUF; llama.cpp runs it as it is.
        ({}, replace(LLAMA, format="gguf", weight_bytes=5 * GiB), "transformers", 8_030_261_248 * 2),
        ({}, replace(LLAMA, format="gguf", weight_bytes=5 * GiB), "llamacpp", 5 * GiB),
        ({}, replace(LLAMA, parameters=None, weight_bytes=None), "vllm", None),
    ],
)
def test_weights(changes: dict[str, Any], facts: ModelFacts, engine: str, expected: int | None) -> None:
    wanted = model(engine=EngineName(engine), **changes)
    assert weight_bytes(wanted, facts, registry.get(engine).memory) == expected


def test_embedding_models_have_no_cache() -> None:
    bert = replace(SMOLLM, kind=ModelKind.EMBED)
    planned = estimate(model(), bert, TRANSFORMERS, 1)
    assert planned
    assert "KV cache" not in dict(planned.parts)


def test_a_shape_that_is_unknown_falls_back_to_a_rule_of_thumb() -> None:
    vague = ModelFacts("m", "/m", True, "pytorch", weight_bytes=10 * GiB)
    found = estimate(model(), vague, TRANSFORMERS, 1)
    assert found
    assert found.per_gpu == pytest.approx(10 * GiB * 1.22 + 2 * GiB, rel=0.01)


def test_nothing_known_gives_no_estimate() -> None:
    blank = ModelFacts("m", "/m", True, "unknown")
    assert need(model(), blank, TRANSFORMERS, 1) is None


def test_the_manifest_beats_what_was_learned_and_that_beats_the_estimate() -> None:
    key = learning_key("llama", "vllm", effective_args(vllm, 2), "NVIDIA L4")
    measured_vram = {key: 30 * GiB + 1}
    found = need(vllm, LLAMA, VLLM, 2, "NVIDIA L4", measured_vram)
    assert found
    assert (found.origin, found.per_gpu) == (Origin.LEARNED, 15 * GiB + 1)
    other = need(vllm, LLAMA, VLLM, 2, "NVIDIA A100", measured_vram)
    assert other
    assert other.origin is Origin.ESTIMATE
    said = need(replace(vllm, vram_bytes=9 * GiB + 1), LLAMA, VLLM, 2, "NVIDIA L4", measured_vram)
    assert said
    assert (said.origin, said.per_gpu, said.parts) == (Origin.MANIFEST, 9 * GiB // 2 + 1, ())


def test_an_engine_that_grows_is_not_trusted_to_have_grown() -> None:
    """What the built-in worker holds just after its load lacks the cache of the requests to come."""
    plain = estimate(model(), LLAMA, TRANSFORMERS, 1)
    assert plain
    key = learning_key("llama", "transformers", effective_args(model(), 1), "L4")

    def with_measured(measured: int) -> int:
        found = need(model(), LLAMA, TRANSFORMERS, 1, "L4", {key: measured})
        assert found
        assert found.origin is Origin.LEARNED
        return found.per_gpu

    growth = sum(size for name, size in plain.parts if name in ("KV cache", "activations"))
    assert with_measured(plain.per_gpu - 2 * growth) == plain.per_gpu - growth
    assert with_measured(plain.per_gpu - growth // 2) == plain.per_gpu
    assert with_measured(plain.per_gpu + GiB) == plain.per_gpu + GiB


def test_the_learning_key_depends_on_everything_that_changes_memory() -> None:
    keys = {
        learning_key("m", "vllm", effective_args(spec, count), gpu)
        for spec in (vllm, replace(vllm, dtype="float16"), replace(vllm, engine_args={"a": 1}), replace(vllm, max_model_len=5))
        for count in (1, 2)
        for gpu in ("L4", "A100")
    }  # fmt: skip
    assert len(keys) == 16
    assert learning_key("m", "vllm", {"a": 1, "b": 2}, "L4") == learning_key(
        "m", "vllm", {"b": 2, "a": 1}, "L4"
    )


@given(
    st.builds(
        ModelFacts,
        source=st.just("m"),
        path=st.just("/m"),
        local=st.just(True),
        format=st.sampled_from(["safetensors", "gguf", "pytorch", "unknown"]),
        **{
            field: st.none() | st.integers(1, 1 << 40)
            for field in ("parameters", "weight_bytes", "layers", "hidden_size", "intermediate_size")
        },
        layer_caches=st.lists(
            st.builds(
                LayerCache,
                st.integers(1, 200),
                st.sampled_from(LayerKind),
                *[st.integers(0, 1 << 12)] * 3,
                window=st.none() | st.integers(1, 1 << 20),
                latent=st.integers(0, 1 << 12),
                stride=st.integers(1, 128),
                state_bytes=st.integers(0, 1 << 30),
            ),
            max_size=4,
        ).map(tuple),
        context_length=st.none() | st.integers(1, 1 << 20),
    ),
    st.sampled_from(EngineName),
    st.integers(1, 16),
)  # fmt: skip
def test_any_facts_give_a_sensible_need_or_none(facts: ModelFacts, engine: EngineName, count: int) -> None:
    found = need(model(engine=engine), facts, registry.get(engine), count)
    if found is not None:
        assert found.per_gpu >= 500 * MiB
        assert sum(size for _, size in found.parts) == found.per_gpu


def test_the_parts_of_a_small_need_are_told_in_mebibytes() -> None:
    mib = 1 << 20
    assert (
        sizes([("weights", 40 * mib), ("context", 2000 * mib)], 2040 * mib) == "weights 40 + context 2000 MiB"
    )
    assert sizes([("weights", 7000 * mib), ("context", 512 * mib)], 7512 * mib) == "weights 6.8 + context 0.5"
