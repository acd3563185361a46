"""From a model's files to its facts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

from llmlaunch.errors import ModelError
from llmlaunch.models.facts import ModelFacts, ModelKind
from llmlaunch.models.reading import config as configs
from llmlaunch.models.reading import gguf_facts, gguf_header, mistral_params, safetensors_header
from llmlaunch.models.reading.files import Files, WeightFiles
from llmlaunch.models.reading.safetensors_header import Tensor

_READERS = 8
"""Headers of a remote repository are read this many at a time."""


def read_facts(files: Files, choice: WeightFiles, *, source: str, path: str, local: bool) -> ModelFacts:
    """Read config.json and the weights' headers. Raises ModelError, naming the file, for what is broken."""
    if choice.format == "gguf":
        return _gguf(files, choice, source, path, local)
    config = _config(files, choice)
    known = read_shape_facts(files, choice, source=source, path=path, local=local)
    weights = _weights(files, choice, files.sizes(), configs.quantisation(config), known.dtype)
    return replace(known, **weights)


def read_shape_facts(files: Files, choice: WeightFiles, *, source: str, path: str, local: bool) -> ModelFacts:
    """What the small files tell, without the weights' sizes. Raises ModelError."""
    sizes = files.sizes()
    shape = configs.shape(_config(files, choice))
    known = ModelFacts(
        source=source,
        path=path,
        local=local,
        format=choice.format,
        files=choice.weights,
        **{field.name: getattr(shape, field.name) for field in fields(shape)},
    )
    if not known.quantisation:
        known = replace(known, quantisation=_sidecar_quantisation(files, sizes))
    return _sentence_transformer(files, sizes, known)


def _weights(
    files: Files, choice: WeightFiles, sizes: Mapping[str, int], quantisation: Mapping[str, Any], dtype: str
) -> dict[str, Any]:
    if choice.format not in ("safetensors", "mistral"):
        # A pickle has no header that can be read without running it; its size is that of its tensors, nearly.
        return {"weight_bytes": sum(sizes[name] for name in choice.weights), "dtype": dtype}
    summary = safetensors_header.summarise(_tensors(files, choice, sizes), quantisation)
    return {"parameters": summary.parameters, "weight_bytes": summary.size, "dtype": summary.dtype or dtype}


def _tensors(files: Files, choice: WeightFiles, sizes: Mapping[str, int]) -> list[Tensor]:
    def one(name: str) -> list[Tensor]:
        return safetensors_header.read_prefixes(
            lambda length: files.prefix(name, length), sizes[name], f"{files.where}/{name}"
        )

    if len(choice.weights) == 1:
        return one(choice.weights[0])
    with ThreadPoolExecutor(_READERS) as pool:
        return [tensor for part in pool.map(one, choice.weights) for tensor in part]


def _gguf(files: Files, choice: WeightFiles, source: str, path: str, local: bool) -> ModelFacts:
    sizes = files.sizes()

    def header(name: str) -> gguf_header.GgufHeader:
        return gguf_header.read_prefixes(
            lambda length: files.prefix(name, length), sizes[name], f"{files.where}/{name}"
        )

    headers = [header(name) for name in choice.weights]
    found = gguf_facts.facts(headers, f"{files.where}/{choice.weights[0]}")
    return replace(
        found,
        source=source,
        path=path,
        local=local,
        files=choice.weights,
        projector=choice.projector,
        projector_bytes=sizes.get(choice.projector, 0),
    )


def _config(files: Files, choice: WeightFiles) -> dict[str, Any]:
    if choice.format == "mistral":
        return mistral_params.as_config(_json(files, mistral_params.FILE))
    return _json(files, "config.json")


def _json(files: Files, name: str) -> dict[str, Any]:
    try:
        value = json.loads(files.read(name))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{files.where}/{name}: invalid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{files.where}/{name}: not a JSON object")
    return value


def _sidecar_quantisation(files: Files, sizes: Mapping[str, int]) -> str:
    """TensorRT Model Optimizer writes a file of its own: hf_quant_config.json."""
    if "hf_quant_config.json" not in sizes:
        return ""
    inner = _json(files, "hf_quant_config.json").get("quantization")
    return configs.quantisation_name(inner) if isinstance(inner, dict) else ""


def _sentence_transformer(files: Files, sizes: Mapping[str, int], known: ModelFacts) -> ModelFacts:
    """modules.json says that a model embeds, and sentence_bert_config.json how much text it takes."""
    if "modules.json" not in sizes or known.kind is ModelKind.RERANK:
        return known
    limit = None
    if "sentence_bert_config.json" in sizes:
        limit = _json(files, "sentence_bert_config.json").get("max_seq_length")
    bounded = min(limit, known.context_length or limit) if type(limit) is int and limit > 0 else None
    return replace(known, kind=ModelKind.EMBED, context_length=bounded or known.context_length)
