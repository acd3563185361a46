"""Headers of GGUF: sound ones are read, broken ones are one ModelError that names the file."""

from __future__ import annotations

import struct

import pytest

from llmlaunch.errors import ModelError
from llmlaunch.models.facts import LayerCache
from llmlaunch.models.reading import gguf_facts, gguf_header
from tests.support.model_files import GGUF_LLAMA, gguf


def read_gguf(content: bytes) -> gguf_header.GgufHeader:
    return gguf_header.read_prefixes(lambda n: content[:n], len(content), "x.gguf")


def test_gguf() -> None:
    header = read_gguf(gguf({**GGUF_LLAMA, "flag": True, "ratio": 0.5, "nested": [[1, 2], [3]]}))
    assert (header.parameters, header.tensor_bytes, header.dtype) == (2048, 1280, "Q4_1")
    assert header.metadata["nested"] == [[1, 2], [3]]
    facts = gguf_facts.facts([header], "x.gguf")
    assert (facts.layers, facts.hidden_size, facts.attention_heads, facts.layer_caches) == (
        2,
        32,
        4,
        (LayerCache(2, kv_heads=2, key_dim=8, value_dim=8),),
    )
    assert (facts.context_length, facts.vocab_size, facts.quantisation) == (256, 3, "Q4_1")


def test_a_long_vocabulary_is_counted_not_kept() -> None:
    words = ["word"] * 300_000
    content = gguf({**GGUF_LLAMA, "tokenizer.ggml.tokens": words, "tokenizer.ggml.scores": [1] * 9000})
    assert len(content) > gguf_header.FIRST_READ_BYTES * 0.8
    header = read_gguf(content)
    assert header.metadata["tokenizer.ggml.tokens"] == gguf_header.Length(300_000)
    assert gguf_facts.facts([header], "x").vocab_size == 300_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "byte 4 of 0"),
        (b"nope" * 10, "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(64), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "entries"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 62), "cut short"),
        (gguf(GGUF_LLAMA)[:200], "cut short"),
        (gguf(GGUF_LLAMA)[:-64], "cut short"),
        (gguf({**GGUF_LLAMA, "general.alignment": 0}), "alignment"),
    ],
)
def test_broken_gguf(content: bytes, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        read_gguf(content)
    assert "x.gguf" in caught.value.message


def test_types_that_are_not_known_are_no_proof_of_a_broken_file() -> None:
    """ik_llama.cpp's IQ4_K is type 139: 4.5 bits an element, which nothing here knows."""
    content = gguf(GGUF_LLAMA, {"a.weight": (139, (256, 100), 14400), "b.weight": (1, (10,), 20)})
    header = read_gguf(content)
    assert (header.parameters, header.dtype) == (25_610, "type-139")
    assert header.tensor_sizes == {"a.weight": 14_400, "b.weight": 20}, "up to the next one"
    assert header.tensor_bytes == 14_420
    with pytest.raises(ModelError, match="cut short"):
        read_gguf(content[:-32])  # the end of b, whose type is known
    last = gguf(GGUF_LLAMA, {"b.weight": (1, (10,), 20), "a.weight": (139, (256, 100), 14400)})
    assert read_gguf(last).tensor_sizes["a.weight"] == 14_400, "up to the end of the file"
    with pytest.raises(ModelError, match="cut short"):
        read_gguf(last[:-14_464])


@pytest.mark.parametrize("length", [24, 60, 100, 1000])
def test_the_first_keys_of_a_file(length: int) -> None:
    keys = gguf_header.first_keys(gguf(GGUF_LLAMA)[:length], "x.gguf")
    assert keys.get("general.architecture") in (None, "llama")
    assert (length < 100) or keys["general.architecture"] == "llama"


def test_the_first_keys_of_something_else() -> None:
    with pytest.raises(ModelError, match=r"x\.gguf: not a GGUF file"):
        gguf_header.first_keys(b"nope", "x.gguf")
