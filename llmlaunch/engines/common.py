"""What several engines share: flags that the plan sets, and the context and concurrency that a model is planned for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmlaunch.engines.flag_table import FlagTable
from llmlaunch.engines.types import DeviceClaim, MemoryRule
from llmlaunch.manifest.types import ModelSpec
from llmlaunch.models.facts import ModelFacts

_SPAN = "gpu_count: or gpus: on the model say how many GPUs it spans"
_REPLICAS = "write replicas: on the model"
_HTTP = "workers are reached over plain HTTP on this machine"
API_KEY = "workers take requests from this deployment alone; client keys belong to api_keys_file: of api:"
OWNED = {
    "host": "write host: on the model",
    "port": "write port: on the model",
}
"""Flags that every server has; here and below without dashes, one of a flag's spellings for all of them."""
PYTHON_SERVER = OWNED | {
    "api-key": API_KEY,
    "model": "write model: on the model",
    "served-model-name": "write names: on the model",
    "revision": "write revision: on the model",
    "trust-remote-code": "write trust_remote_code: on the model",
    "dtype": "write dtype: on the model",
    "tensor-parallel-size": _SPAN,
    "pipeline-parallel-size": _SPAN,
    "data-parallel-size": _REPLICAS,
    "ssl-keyfile": _HTTP,
    "ssl-certfile": _HTTP,
}
"""What vLLM and SGLang have beside these."""


def sequences(model: ModelSpec, table: FlagTable, flag: str, default: int) -> int:
    """Concurrent sequences: ``max_concurrency``, the engine's own flag, or ``default``."""
    return model.max_concurrency or table.integer(model.engine_args, flag) or default


def context(model: ModelSpec, facts: ModelFacts, rule: MemoryRule, table: FlagTable, flag: str) -> int:
    """Tokens: ``max_model_len``, the engine's own flag, or the rule's default, bounded by the model's own."""
    given = model.max_model_len or table.integer(model.engine_args, flag) or 0
    wanted = given if given > 0 else rule.default_context
    return min(wanted, facts.context_length) if facts.context_length else wanted


def no_tool_parser(model: ModelSpec) -> list[str]:
    """A sentence if ``tool_parser`` is given to an engine that has no such flag."""
    return [] if model.tool_parser is None else ["tool_parser applies to transformers, vllm and sglang only"]


def no_bin(model: ModelSpec, instead: str) -> list[str]:
    """A sentence if ``bin`` is given to an engine that is not a program of its own."""
    return [f"bin does not apply to engine: {model.engine}; {instead}"] if model.executable else []


def vram_fraction(devices: Sequence[DeviceClaim]) -> float:
    """The share of each GPU that the replica may take: the least of claim / total, rounded down to four digits.

    0 on the CPU, and where the memory of a GPU is unknown.
    """
    if not devices or not all(claim.total_bytes for claim in devices):
        return 0.0
    return math.floor(min(claim.claim_bytes / claim.total_bytes for claim in devices) * 10_000) / 10_000


def indivisible(facts: ModelFacts, devices: int) -> str:
    """Tensor parallelism gives every GPU the same number of attention heads."""
    if devices > 1 and facts.attention_heads and facts.attention_heads % devices:
        return f"its {facts.attention_heads} attention heads cannot be divided evenly among {devices} GPUs"
    return ""
