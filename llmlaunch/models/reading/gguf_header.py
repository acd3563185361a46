"""Facts from a GGUF header, read from bytes with bounds.

The format: github.com/ggml-org/ggml, docs/gguf.md. Little endian: magic, version, tensor count, key count; the keys with
typed values; the tensors' names, shapes, types and offsets; the data, aligned. Only the header is read, in growing
pieces, so the same code works on a local file and on a remote one.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmlaunch.errors import ModelError
from llmlaunch.models.reading.local_header import Prefix, read_local

MAGIC = b"GGUF"
FIRST_READ_BYTES = 4 << 20
MAX_HEADER_BYTES = 512 << 20
_MAX_COUNT = 1 << 20
_MAX_DEPTH = 4
_MAX_KEPT = 4096
"""Longer arrays (vocabularies, merges) are counted, not kept."""

# GGUF value types: code -> struct format. 8 is a string, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# ggml tensor types: code -> (name, elements a block, bytes a block), from ggml.c's type traits.
TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
}  # fmt: skip
# general.file_type: what the file as a whole is called (llama.h, enum llama_ftype).
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the head of a GGUF file says. Sizes in bytes."""

    metadata: dict[str, Any]
    """Scalars, strings and short arrays by key; of a long array only its length, as :class:`Length`."""
    parameters: int
    tensor_bytes: int
    dtype: str
    """The type most parameters are stored in: Q4_1."""
    tensor_sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes by the tensor's name."""


@dataclass(frozen=True, slots=True)
class Length:
    """Stands for an array that is too long to keep."""

    n: int


class _Truncated(Exception):
    """The header goes on after the bytes read so far."""


def read(path: Path) -> GgufHeader:
    """The header of a local file. Raises ModelError, with the file's name, for anything but a whole GGUF file."""
    return read_local(path, read_prefixes)


def read_prefixes(prefix: Prefix, size: int, where: str) -> GgufHeader:
    """The header of a file of ``size`` bytes, from its first ``n`` bytes as ``prefix(n)`` gives them."""
    length = min(FIRST_READ_BYTES, size)
    while True:
        content = prefix(length)
        try:
            return parse(content, size, where)
        except _Truncated:
            if length >= size:
                raise ModelError(
                    f"{where}: cut short: the GGUF header is incomplete ({size} bytes)",
                    hint="download or copy the file again",
                ) from None
            if length >= MAX_HEADER_BYTES:
                raise ModelError(
                    f"{where}: its GGUF header is longer than {MAX_HEADER_BYTES} bytes"
                ) from None
            length = min(length * 4, size, MAX_HEADER_BYTES)


def parse(content: bytes, size: int, where: str) -> GgufHeader:
    """The header in ``content``, the beginning of a file of ``size`` bytes. Raises ModelError, or _Truncated for more."""
    cursor = _Cursor(content, where, size)
    magic = cursor.take(4)
    if magic != MAGIC:
        pointer = content.startswith(b"version https://git-lfs")
        raise ModelError(
            f"{where}: {'a Git LFS pointer' if pointer else 'not a GGUF file'}",
            hint="run: git lfs pull" if pointer else "",
        )
    version = cursor.number("I")
    if version not in (2, 3):
        raise ModelError(f"{where}: GGUF version {version} is not supported (2 and 3 are)")
    tensors, keys = cursor.count(), cursor.count()
    metadata = {}
    for _ in range(keys):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.number("I"))
    return _summary(cursor, metadata, tensors)


def first_keys(content: bytes, where: str) -> dict[str, Any]:
    """The metadata at the beginning of a file, as far as ``content`` goes. Raises ModelError for what is not GGUF."""
    cursor = _Cursor(content, where, max(len(content), 1 << 48))
    metadata: dict[str, Any] = {}
    if cursor.content[:4] != MAGIC:
        raise ModelError(f"{where}: not a GGUF file")
    try:
        cursor.take(8)
        cursor.count()
        for _ in range(cursor.count()):
            key = cursor.string()
            metadata[key] = cursor.value(cursor.number("I"))
    except _Truncated:
        pass
    return metadata


def is_companion(metadata: Mapping[str, Any]) -> bool:
    """Whether a file goes with a model instead of being one: a projector for images, an adapter, an importance matrix."""
    kind = metadata.get("general.type")
    return metadata.get("general.architecture") == "clip" or kind in ("mmproj", "adapter", "imatrix", "vocab")


def _summary(cursor: _Cursor, metadata: dict[str, Any], tensors: int) -> GgufHeader:
    found = [_Tensor(*cursor.tensor()) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 1 << 20:
        raise ModelError(f"{cursor.where}: general.alignment is {alignment!r}")
    start = -(-cursor.position // alignment) * alignment
    end = max((tensor.offset + (tensor.size or 0) for tensor in found), default=0)
    if start + end > cursor.size and tensors:
        raise ModelError(
            f"{cursor.where}: cut short: its tensors end at byte {start + end} and the file has {cursor.size}",
            hint="download or copy the file again",
        )
    sizes = _sizes(found, cursor.size - start)
    by_type: Counter[str] = Counter()
    for tensor in found:
        by_type[tensor.type_name] += tensor.elements
    most = by_type.most_common(1)
    return GgufHeader(
        metadata,
        parameters=sum(tensor.elements for tensor in found),
        tensor_bytes=sum(sizes),
        dtype=most[0][0] if most else "",
        tensor_sizes=dict(zip((tensor.name for tensor in found), sizes, strict=True)),
    )


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    elements: int
    kind: int
    offset: int
    """Bytes from the beginning of the data."""

    @property
    def type_name(self) -> str:
        return TENSOR_TYPES[self.kind][0] if self.kind in TENSOR_TYPES else f"type-{self.kind}"

    @property
    def size(self) -> int | None:
        """Bytes. None for the types of forks and newer versions of llama.cpp: ik_llama.cpp's IQ4_K is 139."""
        if self.kind not in TENSOR_TYPES:
            return None
        _, block, block_bytes = TENSOR_TYPES[self.kind]
        return -(-self.elements // block) * block_bytes


def _sizes(tensors: list[_Tensor], data: int) -> list[int]:
    """Bytes of each tensor; of a type that is not known, up to the next one, or to the end of the ``data`` bytes."""
    ends = [*sorted({tensor.offset for tensor in tensors}), data]

    def up_to_next(offset: int) -> int:
        return ends[min(bisect_right(ends, offset), len(ends) - 1)] - offset

    return [up_to_next(tensor.offset) if tensor.size is None else tensor.size for tensor in tensors]


class _Cursor:
    def __init__(self, content: bytes, where: str, size: int) -> None:
        self.content = content
        self.where = where
        self.size = size
        self.position = 0

    def take(self, n: int) -> bytes:
        end = self._advance(n)
        return self.content[end - n : end]

    def number(self, code: str) -> Any:
        end = self._advance(struct.calcsize("<" + code))
        return struct.unpack_from("<" + code, self.content, end - struct.calcsize("<" + code))[0]

    def count(self) -> int:
        n = int(self.number("Q"))
        if n > _MAX_COUNT:
            raise ModelError(f"{self.where}: invalid GGUF header: it counts {n} entries")
        return n

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY and depth < _MAX_DEPTH:
            return self._array(depth)
        raise ModelError(f"{self.where}: invalid GGUF header: value type {kind}")

    def tensor(self) -> tuple[str, int, int, int]:
        """Name, elements, type and offset."""
        name = self.string()
        dimensions = self.number("I")
        if dimensions > 8:
            raise ModelError(f"{self.where}: tensor {name[:80]!r} has {dimensions} dimensions")
        elements = 1
        for _ in range(dimensions):
            elements *= self.number("Q")
        if elements >= 1 << 63:
            raise ModelError(f"{self.where}: tensor {name[:80]!r} has an impossible shape")
        return name, elements, self.number("I"), self.number("Q")

    def _array(self, depth: int) -> Any:
        kind, n = self.number("I"), int(self.number("Q"))
        if kind in _SCALARS:
            code = f"<{n}{_SCALARS[kind]}"
            width = struct.calcsize("<" + _SCALARS[kind]) * n
            end = self._advance(width)
            return list(struct.unpack_from(code, self.content, end - width)) if n <= _MAX_KEPT else Length(n)
        if kind == _STRING:
            return self._strings(n)
        if n > _MAX_KEPT:
            raise ModelError(f"{self.where}: invalid GGUF header: an array of {n} arrays")
        return [self.value(kind, depth + 1) for _ in range(n)]

    def _strings(self, n: int) -> Any:
        if n > self.size // 8:
            raise ModelError(f"{self.where}: invalid GGUF header: it lists {n} strings")
        if n <= _MAX_KEPT:
            return [self.string() for _ in range(n)]
        unpack, content, position = struct.Struct("<Q").unpack_from, self.content, self.position
        limit = len(content) - 8
        for _ in range(n):  # a vocabulary: 150,000 steps, so written for speed
            if position > limit:
                raise _Truncated
            position += 8 + unpack(content, position)[0]
        self.position = position
        self._advance(0)
        return Length(n)

    def _advance(self, n: int) -> int:
        end = self.position + n
        if end > self.size:
            raise ModelError(
                f"{self.where}: invalid GGUF header, or cut short: byte {end} of {self.size}",
                hint="download or copy the file again",
            )
        if end > len(self.content):
            raise _Truncated
        self.position = end
        return end
