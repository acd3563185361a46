"""What engines load beside the model, as their arguments say: projectors for images, draft models, LoRA adapters.

Source: llama.cpp, tools/server/README.md; vLLM, ``SpeculativeConfig`` and ``--lora-modules``; SGLang, server arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llmlaunch.engines.flags import lookup
from llmlaunch.manifest.types import EngineName, ModelSpec
from llmlaunch.models.facts import Companion, CompanionRole

_WITHOUT_MODEL = ("ngram", "suffix")
_LLAMACPP_DRAFTS = ("model-draft", "md", "spec-draft-model", "hf-repo-draft", "hfd", "hfrd", "spec-draft-hf")


def companions(model: ModelSpec) -> tuple[Companion, ...]:
    """In the order of the manifest, each once."""
    match model.engine:
        case EngineName.LLAMACPP:
            found = _llamacpp(model.engine_args)
        case EngineName.VLLM:
            found = _vllm(model)
        case EngineName.SGLANG:
            found = _sglang(model.engine_args)
        case _:
            return ()
    return tuple(dict.fromkeys(Companion(role, source) for role, source in found if source))


def drafts_itself(model: ModelSpec) -> bool:
    """Whether layers of the model's own predict further tokens (MTP, nextn)."""
    args = model.engine_args
    if model.engine is EngineName.VLLM:
        return _method(args).endswith(("mtp", "nextn"))
    if model.engine is EngineName.SGLANG:
        algorithm = str(lookup(args, "speculative-algorithm", "speculative-algo") or "").upper()
        return algorithm in ("NEXTN", "EAGLE", "MTP") and not _draft_path(args)
    return model.engine is EngineName.LLAMACPP and "mtp" in str(lookup(args, "spec-type") or "")


def _llamacpp(args: Mapping[str, Any]) -> Iterator[tuple[CompanionRole, str]]:
    projector = lookup(args, "mmproj", "mm")
    if isinstance(projector, str) and lookup(args, "no-mmproj") is not True:
        yield CompanionRole.PROJECTOR, projector
    draft = lookup(args, *_LLAMACPP_DRAFTS)
    if isinstance(draft, str):
        yield CompanionRole.DRAFT, draft
    for value in _each(lookup(args, "lora")):
        for path in value.split(","):
            yield CompanionRole.ADAPTER, path
    for value in _each(lookup(args, "lora-scaled")):  # FILE:SCALE, or two words
        for path in value.split(","):
            name, _, scale = path.rpartition(":")
            if not _is_number(path):
                yield CompanionRole.ADAPTER, name if name and _is_number(scale) else path


def _vllm(model: ModelSpec) -> Iterator[tuple[CompanionRole, str]]:
    args = model.engine_args
    speculation = _mapping(lookup(args, "speculative-config", "sc"))
    draft = speculation.get("model", lookup(args, "speculative-model"))
    named = isinstance(draft, str) and draft not in (model.model, "ngram", "[ngram]")
    if named and not drafts_itself(model) and not _method(args).startswith(_WITHOUT_MODEL):
        yield CompanionRole.DRAFT, draft
    for value in _each(lookup(args, "lora-modules")):
        yield CompanionRole.ADAPTER, _path(value)


def _sglang(args: Mapping[str, Any]) -> Iterator[tuple[CompanionRole, str]]:
    if draft := _draft_path(args):
        yield CompanionRole.DRAFT, draft
    for value in _each(lookup(args, "lora-paths")):
        yield CompanionRole.ADAPTER, _path(value)


def _draft_path(args: Mapping[str, Any]) -> str:
    value = lookup(args, "speculative-draft-model-path", "speculative-draft-model", "speculative-draft")
    return value if isinstance(value, str) else ""


def _method(args: Mapping[str, Any]) -> str:
    return str(_mapping(lookup(args, "speculative-config", "sc")).get("method") or "").lower()


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


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
