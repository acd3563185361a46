"""In which type a model is computed, from what was asked, what is stored, and what is faster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from llmlaunch.hardware.memory import MainMemory
from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.worker.compute import dtype_timing
from llmlaunch.worker.compute.dtype_choice import ProductTimes
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.loading import dtype

CONFIG = WorkerConfig(model="m", names=("m",))
FACTS = ModelFacts("m", "/m", local=True, format="safetensors", parameters=1000, dtype="bfloat16")
GiB = 1 << 30


def settings(stored: torch.dtype | None = torch.bfloat16, **changes: Any) -> LlamaConfig:
    return LlamaConfig(hidden_size=64, intermediate_size=96, dtype=stored, **changes)


@pytest.fixture(autouse=True)
def _emulates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that computes float32 twice as fast as anything else, in a machine with a free GiB."""

    def times(stored: str, hidden: int, inner: int) -> dict[str, ProductTimes]:
        assert (hidden, inner) == (64, 96)
        return {stored: ProductTimes(2.0, 2.0), "float32": ProductTimes(1.0, 1.0)}

    monkeypatch.setattr(dtype_timing, "times", times)
    monkeypatch.setattr(dtype, "main_memory", lambda: MainMemory(GiB, GiB, GiB))


def choose(
    config: WorkerConfig = CONFIG, facts: ModelFacts = FACTS, device: str = "cpu", **changes: Any
) -> str:
    return dtype.choose(config, facts, settings(**changes), device).name


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_widened_where_that_is_faster(stored: torch.dtype) -> None:
    found = dtype.choose(CONFIG, FACTS, settings(stored), "cpu")

    assert found.name == "float32"
    assert "2.0 times as fast" in found.why


@pytest.mark.parametrize("asked", ["bfloat16", "float16", "float32"])
def test_what_is_asked_for_wins(asked: str) -> None:
    assert choose(replace(CONFIG, dtype=asked)) == asked


def test_a_gpu_computes_what_is_stored() -> None:
    assert choose(device="cuda") == "auto"


def test_float32_stays_float32() -> None:
    assert choose(stored=torch.float32) == "auto"


def test_quantised_weights_are_left_alone() -> None:
    assert choose(facts=replace(FACTS, quantisation="gptq")) == "auto"
    assert choose(replace(CONFIG, load_in="8bit")) == "auto"


def test_an_unpacked_gguf_is_not_quantised_any_more() -> None:
    assert choose(facts=replace(FACTS, format="gguf", quantisation="Q4_1", dtype="Q4_1")) == "float32"


def test_where_the_configuration_names_no_type_the_files_do() -> None:
    assert choose(stored=None) == "float32"
    assert choose(facts=replace(FACTS, dtype=""), stored=None) == "auto"


def test_a_model_too_large_for_float32_stays_as_stored_and_says_so() -> None:
    found = dtype.choose(CONFIG, replace(FACTS, parameters=200 << 20), settings(), "cpu")

    assert found.name == "bfloat16"
    assert "needs more memory" in found.why


@pytest.mark.parametrize("kind", list(ModelKind))
def test_every_kind_of_model_is_chosen_for(kind: ModelKind) -> None:
    assert choose(facts=replace(FACTS, kind=kind)) == "float32"


@pytest.mark.parametrize("name", ["auto", "float32", "bfloat16"])
def test_transformers_gets_a_type_or_auto(name: str) -> None:
    assert dtype.for_transformers(name) == ("auto" if name == "auto" else getattr(torch, name))
