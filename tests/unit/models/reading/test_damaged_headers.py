"""safetensors and GGUF headers: sound ones give sizes, broken ones one ModelError that names the file."""

from __future__ import annotations

import json
import struct

from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.errors import ModelError
from llmlaunch.models.reading import gguf_facts, gguf_header, safetensors_header
from tests.support.model_files import GGUF_LLAMA, gguf, safetensors


def read_gguf(content: bytes) -> gguf_header.GgufHeader:
    return gguf_header.read_prefixes(lambda n: content[:n], len(content), "x.gguf")


def survives(content: bytes) -> None:
    """Whatever the bytes are: facts, or a ModelError."""
    try:
        gguf_facts.facts([read_gguf(content)], "x.gguf")
    except ModelError:
        pass
    try:
        safetensors_header.read_prefixes(lambda n: content[:n], len(content), "x.safetensors")
    except ModelError:
        pass
    try:
        safetensors_header.parse_index(content, "x.json")
    except ModelError:
        pass


@given(st.binary(max_size=400))
def test_random_bytes(content: bytes) -> None:
    survives(content)
    survives(b"GGUF" + struct.pack("<I", 3) + content)
    survives(b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + content)
    survives(struct.pack("<Q", len(content)) + content)


SOUND = gguf({**GGUF_LLAMA, "nested": [[1, 2], [3]], "words": ["a", "bc"]})


SOUND_TENSORS = safetensors({"a": ("BF16", (8, 4)), "b": ("F32", (3,))})


@given(st.integers(0, len(SOUND) - 1), st.binary(min_size=1, max_size=8), st.integers(0, len(SOUND)))
def test_damaged_files(at: int, damage: bytes, length: int) -> None:
    survives((SOUND[:at] + damage + SOUND[at + len(damage) :])[: length or None])
    at %= len(SOUND_TENSORS)
    survives(SOUND_TENSORS[:at] + damage + SOUND_TENSORS[at + len(damage) :])


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5) | st.floats(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)))  # fmt: skip
def test_any_json_as_a_header(value: object) -> None:
    for content in (value, {"w": value}, {"weight_map": value}):
        text = json.dumps(content).encode()
        survives(struct.pack("<Q", len(text)) + text)
        survives(text)
