"""What engines are told to load beside the model."""

from __future__ import annotations

from typing import Any

import pytest

from llmlaunch.engines.companions import companions, drafts_itself
from llmlaunch.manifest.types import EngineName, ModelSpec
from llmlaunch.models.facts import Companion, CompanionRole

PROJECTOR, DRAFT, ADAPTER = CompanionRole.PROJECTOR, CompanionRole.DRAFT, CompanionRole.ADAPTER


def asked(engine: EngineName, args: dict[str, Any]) -> ModelSpec:
    return ModelSpec(model="org/big", names=("big",), engine=engine, engine_args=args)


@pytest.mark.parametrize(
    ("engine", "args", "expected"),
    [
        ("llamacpp", {}, []),
        ("llamacpp", {"mmproj": "/m/mmproj.gguf"}, [(PROJECTOR, "/m/mmproj.gguf")]),
        ("llamacpp", {"mm": "a.gguf", "no-mmproj": True}, []),
        ("llamacpp", {"model_draft": "small.gguf"}, [(DRAFT, "small.gguf")]),
        ("llamacpp", {"md": "small.gguf"}, [(DRAFT, "small.gguf")]),
        ("llamacpp", {"hfd": "org/small"}, [(DRAFT, "org/small")]),
        ("llamacpp", {"lora": "a.gguf,b.gguf"}, [(ADAPTER, "a.gguf"), (ADAPTER, "b.gguf")]),
        ("llamacpp", {"lora": ["a.gguf", "a.gguf"]}, [(ADAPTER, "a.gguf")]),
        ("llamacpp", {"lora-scaled": "a.gguf:0.5"}, [(ADAPTER, "a.gguf")]),
        ("llamacpp", {"lora-scaled": ["a.gguf", 0.5]}, [(ADAPTER, "a.gguf")]),
        ("vllm", {"lora-modules": ["sql=/l/sql", "/l/chat"]}, [(ADAPTER, "/l/sql"), (ADAPTER, "/l/chat")]),
        ("vllm", {"lora_modules": {"sql": "/l/sql"}}, [(ADAPTER, "/l/sql")]),
        ("vllm", {"lora-modules": '{"name": "sql", "path": "/l/sql"}'}, [(ADAPTER, "/l/sql")]),
        ("vllm", {"lora-modules": [{"name": "sql", "path": "/l/sql"}]}, [(ADAPTER, "/l/sql")]),
        (
            "vllm",
            {"speculative-config": {"model": "org/small", "num_speculative_tokens": 3}},
            [(DRAFT, "org/small")],
        ),
        (
            "vllm",
            {"speculative_config": '{"method": "eagle3", "model": "org/eagle"}'},
            [(DRAFT, "org/eagle")],
        ),
        ("vllm", {"speculative-model": "org/small"}, [(DRAFT, "org/small")]),
        ("vllm", {"speculative-config": {"method": "ngram", "prompt_lookup_max": 4}}, []),
        ("vllm", {"speculative-config": {"method": "mtp", "model": "org/big"}}, []),
        ("vllm", {"speculative-config": "not json"}, []),
        ("sglang", {"speculative-draft-model-path": "org/eagle"}, [(DRAFT, "org/eagle")]),
        ("sglang", {"lora-paths": ["sql=/l/sql"]}, [(ADAPTER, "/l/sql")]),
        ("transformers", {"lora": "a"}, []),
        ("llamacpp", {"mmproj": 7, "model-draft": ["x"], "lora": None}, []),
    ],
)
def test_companions(engine: str, args: dict[str, Any], expected: list[tuple[CompanionRole, str]]) -> None:
    found = companions(asked(EngineName(engine), args))
    assert found == tuple(Companion(role, source) for role, source in expected)


@pytest.mark.parametrize(
    ("engine", "args", "own"),
    [
        ("vllm", {"speculative-config": {"method": "mtp"}}, True),
        ("vllm", {"speculative-config": '{"method": "deepseek_mtp"}'}, True),
        ("vllm", {"speculative-config": {"method": "eagle", "model": "x"}}, False),
        ("sglang", {"speculative-algorithm": "NEXTN"}, True),
        ("sglang", {"speculative-algorithm": "EAGLE"}, True),
        ("sglang", {"speculative-algorithm": "EAGLE", "speculative-draft-model-path": "x"}, False),
        ("llamacpp", {"spec-type": "draft-mtp"}, True),
        ("llamacpp", {"model-draft": "x"}, False),
        ("transformers", {}, False),
    ],
)
def test_models_that_draft_themselves(engine: str, args: dict[str, Any], own: bool) -> None:
    assert drafts_itself(asked(EngineName(engine), args)) is own
