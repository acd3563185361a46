"""``engine: auto``: which engine, and why, over tables of models and machines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.hardware.types import Inventory
from llmlaunch.manifest.types import EngineName, GpuCpu, GpuPinned
from llmlaunch.models.facts import ModelKind
from llmlaunch.planning.plan import plan
from llmlaunch.planning.types import InstalledEngine, Plan, PlanningContext, ProcessSpec
from tests.unit.planning.builders import BARE, LLAMA, box, gpu, manifest, model, spec

TRANSFORMERS, VLLM, SGLANG, LLAMACPP = (
    EngineName.TRANSFORMERS,
    EngineName.VLLM,
    EngineName.SGLANG,
    EngineName.LLAMACPP,
)
FACTS = replace(LLAMA, architecture="LlamaForCausalLM")
GGUF = replace(FACTS, format="gguf", architecture="llama")
KNOWN = frozenset({"LlamaForCausalLM"})
HERE = {
    VLLM: InstalledEngine("vLLM 0.32 in /opt/vllm/bin/python", KNOWN),
    SGLANG: InstalledEngine("SGLang 0.5 in /opt/sglang/bin/python", KNOWN),
    LLAMACPP: InstalledEngine("/usr/bin/llama-server"),
}
CARD = box(replace(gpu(0), compute_capability=(8, 0)))
OLD = box(replace(gpu(0), compute_capability=(6, 1)), replace(gpu(1), compute_capability=(6, 1)))
MIXED = box(replace(gpu(0), compute_capability=(6, 1)), replace(gpu(1), compute_capability=(8, 0)))


def auto(**changes: Any) -> Any:
    return model(engine=EngineName.AUTO, **changes)


def made(
    wanted: Any,
    facts: Any = FACTS,
    on: Inventory = CARD,
    here: Any = HERE,
    running: tuple[ProcessSpec, ...] = (),
    idle: frozenset[str] = frozenset(),
) -> Plan:
    context = PlanningContext(
        installed={"llama": here} if here is not None else {}, running=running, idle=idle
    )
    return plan(manifest(wanted), on, {"llama": facts}, context)


@pytest.mark.parametrize(
    ("changes", "facts", "on", "here", "engine", "says"),
    [
        ({}, GGUF, BARE, HERE, LLAMACPP, "GGUF, and there is /usr/bin/llama-server"),
        ({}, GGUF, CARD, HERE, LLAMACPP, "GGUF"),
        ({"gpus": GpuCpu()}, GGUF, CARD, HERE, LLAMACPP, "GGUF"),
        ({}, replace(GGUF, kind=ModelKind.EMBED), BARE, HERE, LLAMACPP, "GGUF"),
        ({}, GGUF, BARE, {}, TRANSFORMERS, "it converts GGUF; no llama.cpp here"),
        ({}, GGUF, BARE, None, TRANSFORMERS, "it converts GGUF; no llama.cpp here"),
        ({"tool_parser": "hermes"}, GGUF, BARE, HERE, TRANSFORMERS, "llama.cpp: tool_parser applies to"),
        ({"engine_args": {"threads": 2}}, GGUF, BARE, HERE, TRANSFORMERS, "engine_args are flags of one engine"),
        ({"engine_args": {"threads": 2}}, FACTS, CARD, HERE, TRANSFORMERS, "engine_args are flags of one engine"),
        ({}, FACTS, CARD, HERE, VLLM, "vLLM 0.32 in /opt/vllm/bin/python knows LlamaForCausalLM; its tool calls need"),
        ({"tool_parser": "hermes"}, FACTS, CARD, HERE, VLLM, "knows LlamaForCausalLM"),
        ({"tool_parser": "none"}, FACTS, CARD, HERE, TRANSFORMERS, "vLLM: its tool parsers have other names; SGLang: its"),
        ({"gpus": GpuPinned((0,))}, FACTS, CARD, HERE, VLLM, "safetensors on a GPU"),
        ({}, FACTS, CARD, {SGLANG: HERE[SGLANG]}, SGLANG, "safetensors on a GPU, and SGLang 0.5 in"),
        ({"tool_parser": "hermes"}, FACTS, CARD, {SGLANG: HERE[SGLANG]}, TRANSFORMERS, "no vLLM here; SGLang: its tool parsers"),
        ({}, FACTS, CARD, {}, TRANSFORMERS, "no vLLM here; no SGLang here"),
        ({}, FACTS, CARD, None, TRANSFORMERS, "no vLLM here; no SGLang here"),
        ({}, FACTS, BARE, HERE, TRANSFORMERS, "on the CPU"),
        ({"gpus": GpuCpu()}, FACTS, CARD, HERE, TRANSFORMERS, "on the CPU"),
        ({}, replace(FACTS, kind=ModelKind.EMBED), CARD, HERE, TRANSFORMERS, "it embeds"),
        ({}, replace(FACTS, kind=ModelKind.RERANK), CARD, HERE, TRANSFORMERS, "it reranks"),
        ({}, replace(FACTS, format="pytorch"), CARD, HERE, TRANSFORMERS, "its weights are pytorch"),
        ({}, replace(FACTS, architecture="New"), CARD, HERE, TRANSFORMERS, "vLLM 0.32 in /opt/vllm/bin/python does not know New; SGLang"),
        ({}, replace(FACTS, architecture=""), CARD, HERE, TRANSFORMERS, "does not know its architecture"),
        ({}, FACTS, OLD, HERE, TRANSFORMERS, "vLLM: GPU 0 has compute capability 6.1, and vllm needs 7.0"),
        ({}, FACTS, MIXED, HERE, VLLM, "safetensors on a GPU"),
        ({"gpus": GpuPinned((0,))}, FACTS, MIXED, HERE, TRANSFORMERS, "compute capability 6.1"),
        ({"gpus": GpuPinned((0, 1, 2))}, FACTS, box(gpu(0), gpu(1), gpu(2)), HERE, TRANSFORMERS, "32 attention heads"),
    ],
)  # fmt: skip
def test_the_rules(changes: Any, facts: Any, on: Inventory, here: Any, engine: EngineName, says: str) -> None:
    worker = spec(made(auto(**changes), facts, on, here), "llama-1")
    assert worker.engine == engine
    assert worker.engine_auto
    assert worker.engine_reason.startswith(f"engine auto: {engine}: ")
    assert says in worker.engine_reason


@pytest.mark.parametrize("engine", [TRANSFORMERS, VLLM, SGLANG])
def test_what_is_asked_for_by_name_is_never_replaced(engine: EngineName) -> None:
    for here in (HERE, {}, None):
        worker = spec(made(model(engine=engine), here=here), "llama-1")
        assert (worker.engine, worker.engine_auto) == (engine, False)


def test_a_model_keeps_the_engine_that_was_chosen_when_it_was_started() -> None:
    before = spec(made(auto(), here={}), "llama-1")
    again = spec(made(auto(), running=(before,)), "llama-1")
    assert again == before, "nothing is restarted"
    changed = spec(made(auto(stop_signal="SIGINT"), running=(before,)), "llama-1")
    assert changed.engine == TRANSFORMERS
    assert "by now it would be vllm" in changed.engine_reason
    later = spec(made(auto(), running=(before,), idle=frozenset({"llama-1"})), "llama-1")
    assert later.engine == VLLM, "down and up choose again"


def test_an_engine_that_is_gone_is_not_kept() -> None:
    before = spec(made(auto()), "llama-1")
    assert before.engine == VLLM
    assert spec(made(auto(), running=(before,), here={}), "llama-1").engine == TRANSFORMERS
    only_sglang = {SGLANG: HERE[SGLANG]}
    assert spec(made(auto(), running=(before,), here=only_sglang), "llama-1").engine == SGLANG


def test_an_engine_that_the_manifest_named_is_not_kept() -> None:
    named = spec(made(model(engine=TRANSFORMERS)), "llama-1")
    assert spec(made(auto(), running=(named,)), "llama-1").engine == VLLM


def test_the_environment_of_an_engine_that_was_not_chosen_runs_nothing_else() -> None:
    place = {"python": "/opt/vllm/bin/python", "venv": "/opt/vllm"}
    worker = spec(made(auto(**place), on=BARE), "llama-1")
    assert worker.argv[0] == "python3"
    assert worker.path_first == ""
    assert "because /opt/vllm/bin/python does not have it" in worker.engine_reason
    whole = {**HERE, TRANSFORMERS: InstalledEngine("the built-in engine")}
    assert spec(made(auto(**place), on=BARE, here=whole), "llama-1").argv[0] == place["python"]
    chosen = spec(made(auto(**place)), "llama-1")
    assert (chosen.argv[0], chosen.path_first) == (place["python"], "/opt/vllm/bin")
