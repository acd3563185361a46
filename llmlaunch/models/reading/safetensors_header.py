"""Sizes from safetensors headers, without reading a weight.

The format (huggingface.co/docs/safetensors): eight bytes with the header's length, little endian; the header, a JSON
object from tensor names to dtype, shape and data offsets; the data. A sharded model has an index that maps tensor names
to files.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from llmlaunch.errors import ModelError
from llmlaunch.models.reading.local_header import Prefix, read_local

MAX_HEADER_BYTES = 100_000_000
"""The safetensors library refuses longer ones as well."""
FIRST_READ_BYTES = 100_000
LFS_POINTER = b"version https://git-lfs"
DTYPE_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "F4": "float4", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a safetensors file."""

    name: str
    dtype: str
    """As safetensors names it: BF16."""
    elements: int
    size: int
    """Bytes as stored."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What the tensors of one model add up to."""

    parameters: int
    size: int
    """Bytes as stored."""
    dtype: str
    """That most parameters are stored in, with torch's name: bfloat16."""


def read(path: Path) -> list[Tensor]:
    """The tensors of one file. Raises ModelError, with the file's name, for anything but a whole safetensors file."""
    return read_local(path, read_prefixes)


def read_prefixes(prefix: Prefix, size: int, where: str) -> list[Tensor]:
    """The tensors of a file of ``size`` bytes, from its first ``n`` bytes as ``prefix(n)`` gives them."""
    content = prefix(min(FIRST_READ_BYTES, size))
    if content.startswith(LFS_POINTER):
        raise ModelError(f"{where}: a Git LFS pointer, not the weights themselves", hint="run: git lfs pull")
    if len(content) < 8:
        raise ModelError(f"{where}: not a safetensors file: it has {size} bytes")
    length = struct.unpack_from("<Q", content)[0]
    if length > MAX_HEADER_BYTES or length > size - 8:
        raise ModelError(
            f"{where}: not a safetensors file, or cut short: its header would have {length} bytes and the file has "
            f"{size}",
            hint="download or copy the file again",
        )
    if len(content) < 8 + length:
        content = prefix(8 + length)
    return parse(content[8 : 8 + length], where, size - 8 - length)


def parse(header: bytes, where: str, data_bytes: int | None = None) -> list[Tensor]:
    """The tensors that a header names; ``data_bytes`` is the size of the data behind it, when known.

    Raises ModelError, with ``where`` in it, for a header that is malformed or promises more than there is.
    """
    try:
        content = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: its safetensors header is not JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"{where}: its safetensors header is not a JSON object")
    tensors = [_tensor(name, value, where) for name, value in content.items() if name != "__metadata__"]
    end = max(
        (value["data_offsets"][1] for name, value in content.items() if name != "__metadata__"), default=0
    )
    if data_bytes is not None and end > data_bytes:
        raise ModelError(
            f"{where}: cut short: its tensors need {end} bytes, but only {data_bytes} are there",
            hint="download or copy the file again",
        )
    return tensors


def _tensor(name: str, value: Any, where: str) -> Tensor:
    broken = ModelError(f"{where}: its safetensors header describes tensor {name[:80]!r} wrongly")
    if not isinstance(value, dict) or not isinstance(value.get("dtype"), str):
        raise broken
    shape, offsets = value.get("shape"), value.get("data_offsets")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise broken
    return Tensor(name, value["dtype"], math.prod(shape), offsets[1] - offsets[0])


def _sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def parse_index(content: bytes, where: str) -> list[str]:
    """File names in a ``*.index.json``, sorted. Raises ModelError when it is malformed."""
    try:
        weight_map = json.loads(content)["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{where}: not an index of weight files (no weight_map)") from error
    for name in names:
        if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"{where}: refers to a file outside its folder: {name!r}")
    return names


def summarise(tensors: Iterable[Tensor], quantisation: Mapping[str, Any] | None = None) -> Weights:
    """Add tensors up. ``quantisation`` is config.json's quantization_config: packed elements hold several parameters."""
    parameters = size = 0
    by_dtype: Counter[str] = Counter()
    bits = _packed_bits(quantisation or {})
    for tensor in tensors:
        size += tensor.size
        count = _parameters(tensor, bits)
        parameters += count
        by_dtype[tensor.dtype] += count
    most = by_dtype.most_common(1)
    return Weights(parameters, size, DTYPE_NAMES.get(most[0][0], most[0][0].lower()) if most else "")


def _packed_bits(quantisation: Mapping[str, Any]) -> int:
    """Bits per weight where several weights share an element, else 0."""
    method = quantisation.get("quant_method")
    bits: Any = quantisation.get("bits") or quantisation.get("w_bit")
    if method == "compressed-tensors":
        groups = quantisation.get("config_groups")
        first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
        weights = first.get("weights") if isinstance(first, dict) else None
        bits = weights.get("num_bits") if isinstance(weights, dict) else None
    elif method == "mxfp4" or quantisation.get("load_in_4bit"):
        bits = 4
    return bits if type(bits) is int and 0 < bits <= 8 else 0


def _parameters(tensor: Tensor, bits: int) -> int:
    """Weights that a tensor holds: none in the scales of a quantised one, several per element in the packed one."""
    last = tensor.name.rpartition(".")[2]
    if not bits:
        return tensor.elements
    if last in ("qzeros", "scales", "g_idx", "weight_scale", "weight_zero_point", "weight_shape", "absmax"):
        return 0
    packed = last in ("qweight", "weight_packed") or (last.endswith("_blocks") and tensor.dtype == "U8")
    if packed or (bits == 4 and last == "weight" and tensor.dtype == "U8"):
        return tensor.size * 8 // bits
    return tensor.elements
