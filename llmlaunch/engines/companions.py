"""What engines load beside the model, as their arguments say: projectors for images, draft models, LoRA adapters.

Source: llama.cpp, tools/server/README.md; vLLM, ``SpeculativeConfig`` and ``--lora-modules``; SGLang, server arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llmlaunch.engines import registry
from llmlaunch.engines.llamacpp import PROJECTOR_FLAGS
from llmlaunch.engines.units import is_number
from llmlaunch.manifest.types import EngineName, ModelSpec
from llmlaunch.models.facts import Companion, CompanionRole

_WITHOUT_MODEL = ("ngram", "suffix")
_LLAMACPP_DRAFTS = ("spec-draft-model", "spec-draft-hf")


def companions(model: ModelSpec) -> tuple[Companion, ...]:
    """In the order of the manifest, each once."""
    match model.engine:
        case EngineName.LLAMACPP:
            found = _llamacpp(model)
        case EngineName.VLLM:
            found = _vllm(model)
        case EngineName.SGLANG:
            found = _sglang(model)
        case _:
            return ()
    return tuple(dict.fromkeys(Companion(role, source) for role, source in found if source))


def takes_projector(model: ModelSpec) -> bool:
    """Whether llama.cpp is given the projector that lies beside the model, because its arguments say nothing of one."""
    return model.engine is EngineName.LLAMACPP and registry.given(model, *PROJECTOR_FLAGS) is None


def drafts_itself(model: ModelSpec) -> bool:
    """Whether layers of the model's own predict further tokens (MTP, nextn)."""
    if model.engine is EngineName.VLLM:
        return _method(model).endswith(("mtp", "nextn"))
    if model.engine is EngineName.SGLANG:
        algorithm = str(registry.given(model, "speculative-algorithm", "speculative-algo") or "").upper()
        return algorithm in ("NEXTN", "EAGLE", "MTP") and not _draft_path(model)
    return model.engine is EngineName.LLAMACPP and "mtp" in str(registry.given(model, "spec-type") or "")


def _llamacpp(model: ModelSpec) -> Iterator[tuple[CompanionRole, str]]:
    projector = registry.given(model, "mmproj")
    if isinstance(projector, str) and registry.given(model, "mmproj-auto") is not False:
        yield CompanionRole.PROJECTOR, projector
    draft = registry.given(model, *_LLAMACPP_DRAFTS)
    if isinstance(draft, str):
        yield CompanionRole.DRAFT, draft
    for value in _each(registry.given(model, "lora")):
        for path in value.split(","):
            yield CompanionRole.ADAPTER, path
    for value in _each(registry.given(model, "lora-scaled")):  # FILE:SCALE, or two words
        for path in value.split(","):
            name, _, scale = path.rpartition(":")
            if not is_number(path):
                yield CompanionRole.ADAPTER, name if name and is_number(scale) else path


def _vllm(model: ModelSpec) -> Iterator[tuple[CompanionRole, str]]:
    speculation = _mapping(registry.given(model, "speculative-config"))
    draft = speculation.get("model", registry.given(model, "speculative-model"))
    named = isinstance(draft, str) and draft not in (model.model, "ngram", "[ngram]")
    if named and not drafts_itself(model) and not _method(model).startswith(_WITHOUT_MODEL):
        yield CompanionRole.DRAFT, draft
    for value in _each(registry.given(model, "lora-modules")):
        yield CompanionRole.ADAPTER, _path(value)


def _sglang(model: ModelSpec) -> Iterator[tuple[CompanionRole, str]]:
    if draft := _draft_path(model):
        yield CompanionRole.DRAFT, draft
    for value in _each(registry.given(model, "lora-paths")):
        yield CompanionRole.ADAPTER, _path(value)


def _draft_path(model: ModelSpec) -> str:
    value = registry.given(model, "speculative-draft-model-path", "speculative-draft")
    return value if isinstance(value, str) else ""


def _method(model: ModelSpec) -> str:
    return str(_mapping(registry.given(model, "speculative-config")).get("method") or "").lower()


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _each(value: Any) -> Iterator[str]:
    """Texts: of one value, of a list, or of a mapping of names to paths; mappings in a list as JSON."""
    if isinstance(value, Mapping) and "path" not in value:
        value = list(value.values())
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, Mapping):
            yield json.dumps(dict(item))
        elif item is not None and not isinstance(item, bool):
            yield str(item)


def _path(value: str) -> str:
    """The path in ``name=path``, ``{"name": …, "path": …}`` or just a path."""
    said = _mapping(value)
    if said:
        return str(said.get("path") or said.get("lora_path") or "")
    return value.partition("=")[2] or value
