"""What a GGUF header says about a model's shape.

Pure. The keys are ``<architecture>.<name>`` as llama.cpp's conversion writes them (gguf-py, constants.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmlaunch.errors import ModelError
from llmlaunch.models.facts import LayerWeights, ModelFacts, ModelKind
from llmlaunch.models.reading.gguf_header import FILE_TYPES, GgufHeader, is_companion
from llmlaunch.models.reading.gguf_keys import GgufKeys
from llmlaunch.models.reading.gguf_layers import layer_caches
from llmlaunch.models.reading.layers import MAX_LAYERS

_BLOCK = re.compile(r"^blk\.(\d{1,6})\.")
_EXPERTS = "_exps."
_EMBEDDERS = ("bert", "t5encoder")
_PLAIN = ("F32", "F16", "BF16", "F64")
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def facts(headers: Sequence[GgufHeader], where: str) -> ModelFacts:
    """The facts of a GGUF model, whole or split; place and source are left to the caller. Raises ModelError."""
    metadata = headers[0].metadata
    architecture = str(metadata.get("general.architecture", ""))
    if is_companion(metadata):
        raise ModelError(f"{where}: not a language model ({metadata.get('general.type', architecture)})")
    if not architecture:
        raise ModelError(f"{where}: its GGUF header does not name an architecture")
    _check_parts(headers, where)
    keys = GgufKeys(metadata, architecture)
    largest = max(headers, key=lambda header: header.parameters)
    return ModelFacts(
        source="",
        path="",
        local=True,
        format="gguf",
        kind=_kind(keys),
        architecture=architecture,
        parameters=sum(header.parameters for header in headers),
        weight_bytes=sum(header.tensor_bytes for header in headers),
        dtype=_DTYPES.get(largest.dtype, largest.dtype),
        layers=keys.number("block_count"),
        hidden_size=keys.number("embedding_length"),
        intermediate_size=keys.number("feed_forward_length"),
        attention_heads=keys.number("attention.head_count"),
        vocab_size=keys.number("vocab_size") or keys.length("tokenizer.ggml.tokens"),
        context_length=keys.number("context_length"),
        quantisation=_quantisation(metadata, largest.dtype),
        experts=keys.number("expert_count"),
        experts_per_token=keys.number("expert_used_count"),
        layer_caches=layer_caches(keys),
        draft_layers=keys.number("nextn_predict_layers") or 0,
        layer_weights=_layer_weights(headers, keys.number("block_count") or 0),
    )


def _layer_weights(headers: Sequence[GgufHeader], layers: int) -> tuple[LayerWeights, ...]:
    sums: dict[int, list[int]] = {}
    for header in headers:
        for name, size in header.tensor_sizes.items():
            match = _BLOCK.match(name)
            if match:
                both = sums.setdefault(int(match[1]), [0, 0])
                both[0] += size
                both[1] += size if _EXPERTS in name else 0
    if not sums or len(sums) > MAX_LAYERS:
        return ()
    return tuple(LayerWeights(*sums.get(index, (0, 0))) for index in range(min(layers, MAX_LAYERS)))


def _check_parts(headers: Sequence[GgufHeader], where: str) -> None:
    """A split model says in its header how many parts and tensors it has, whatever its files are called."""
    said, tensors = (headers[0].metadata.get(f"split.{name}") for name in ("count", "tensors.count"))
    if type(said) is not int or said < 2:
        return
    number = headers[0].metadata.get("split.no")
    if said != len(headers) or number not in (0, None):
        part = number + 1 if type(number) is int else "one"
        there = f", and {len(headers)} of them are there" if len(headers) > 1 else ""
        raise ModelError(
            f"{where} is part {part} of {said} of a split model{there}",
            hint=f"name the file …-00001-of-{said:05d}.gguf with its parts beside it, or join them with "
            "llama-gguf-split --merge (cat does not work)",
        )
    found = sum(len(header.tensor_sizes) for header in headers)
    if type(tensors) is int and found != tensors:
        raise ModelError(
            f"{where}: its {said} parts hold {found} tensors, and the first says {tensors}",
            hint="they are parts of different files; download or copy the model again",
        )


def _quantisation(metadata: Mapping[str, Any], dtype: str) -> str:
    code = metadata.get("general.file_type")
    name = FILE_TYPES.get(code, dtype) if type(code) is int else dtype
    return "" if name in _PLAIN else name


def _kind(keys: GgufKeys) -> ModelKind:
    pooling = keys.get("pooling_type")  # llama.h, enum llama_pooling_type: 4 ranks, 1 to 3 embed
    if pooling == 4:
        return ModelKind.RERANK
    embeds = pooling in (1, 2, 3) or keys.architecture.endswith(_EMBEDDERS)
    return ModelKind.EMBED if embeds else ModelKind.GENERATE
