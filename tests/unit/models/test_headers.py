"""safetensors and GGUF headers: sound ones give sizes, broken ones one ModelError that names the file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.errors import ModelError
from llmlaunch.models import gguf_facts, gguf_header, safetensors_header
from llmlaunch.models.facts import ModelKind
from llmlaunch.models.safetensors_header import Tensor, summarise
from tests.support.model_files import GGUF_LLAMA, gguf, safetensors


def write(tmp_path: Path, content: bytes, name: str = "model.safetensors") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def read_gguf(content: bytes) -> gguf_header.GgufHeader:
    return gguf_header.read_prefixes(lambda n: content[:n], len(content), "x.gguf")


def test_safetensors(tmp_path: Path) -> None:
    path = write(tmp_path, safetensors({"a": ("BF16", (8, 4)), "b": ("F32", (3,)), "scalar": ("F32", ())}))
    weights = summarise(safetensors_header.read(path))
    assert (weights.parameters, weights.size, weights.dtype) == (36, 80, "bfloat16")


def test_a_header_longer_than_the_first_read(tmp_path: Path) -> None:
    tensors = {f"layer.{n}.weight": ("BF16", (2,)) for n in range(5000)}
    path = write(tmp_path, safetensors(tensors))
    assert path.stat().st_size > safetensors_header.FIRST_READ_BYTES * 2
    assert summarise(safetensors_header.read(path)).parameters == 10_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (b"abc", "3 bytes"),
        (b"\xff" * 64, "cut short"),
        (struct.pack("<Q", 1000) + b"{}", "cut short"),
        (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
        (struct.pack("<Q", 4) + b"nope", "not JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        (safetensors({"a": ("F32", (8,))})[:-1], "cut short"),
    ],
)
def test_broken_safetensors_name_the_file(tmp_path: Path, content: bytes, words: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ModelError, match=words) as caught:
        safetensors_header.read(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    "tensor",
    [
        [], {}, {"dtype": "F32"}, {"dtype": "F32", "shape": [1]}, {"dtype": 4, "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}, {"dtype": "F32", "shape": [1], "data_offsets": [0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, True]},
    ],
)  # fmt: skip
def test_wrong_tensor_descriptions(tensor: object) -> None:
    with pytest.raises(ModelError, match="describes tensor 'w' wrongly"):
        safetensors_header.parse(json.dumps({"w": tensor}).encode(), "x")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        safetensors_header.read(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        gguf_header.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": {"a": 1}}',
                                     b'{"weight_map": {"a": "../x"}}', b'{"weight_map": {"a": "/etc/passwd"}}'])  # fmt: skip
def test_broken_indexes(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"x\.json"):
        safetensors_header.parse_index(content, "x.json")


@pytest.mark.parametrize(
    ("quantisation", "tensors", "parameters"),
    [
        ({"quant_method": "gptq", "bits": 4}, [("l.qweight", "I32", 64), ("l.scales", "F16", 8), ("n", "F16", 4)], 516),
        ({"quant_method": "awq", "bits": 4}, [("l.qweight", "I32", 64), ("l.qzeros", "I32", 8)], 512),
        ({"load_in_4bit": True}, [("l.weight", "U8", 128), ("l.weight.absmax", "U8", 8)], 256),
        ({"quant_method": "mxfp4"}, [("e.down_proj_blocks", "U8", 128)], 256),
        ({"quant_method": "fp8"}, [("l.weight", "F8_E4M3", 128)], 128),
        ({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4}}}},
         [("l.weight_packed", "I32", 64), ("l.weight_scale", "F16", 8)], 512),
        ({"quant_method": "compressed-tensors", "config_groups": []}, [("l.weight", "BF16", 64)], 64),
    ],
)  # fmt: skip
def test_packed_weights_hold_several_parameters(
    quantisation: dict[str, object], tensors: list[tuple[str, str, int]], parameters: int
) -> None:
    sizes = {"I32": 4, "F16": 2, "BF16": 2, "U8": 1, "F8_E4M3": 1}
    rows = [Tensor(name, dtype, n, n * sizes[dtype]) for name, dtype, n in tensors]
    assert summarise(rows, quantisation).parameters == parameters


def test_gguf() -> None:
    header = read_gguf(gguf({**GGUF_LLAMA, "flag": True, "ratio": 0.5, "nested": [[1, 2], [3]]}))
    assert (header.parameters, header.tensor_bytes, header.dtype) == (2048, 1280, "Q4_1")
    assert header.metadata["nested"] == [[1, 2], [3]]
    facts = gguf_facts.facts([header], "x.gguf")
    assert (facts.layers, facts.hidden_size, facts.attention_heads, facts.kv_heads, facts.head_dim) == (
        2,
        32,
        4,
        2,
        8,
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
    ("extra", "field", "value"),
    [
        ({"llama.attention.head_count_kv": [2, 0]}, "stateless_layers", 1),
        ({"llama.attention.sliding_window": 64}, "sliding_layers", 2),
        (
            {"llama.attention.sliding_window": 64, "llama.attention.sliding_window_pattern": [True, False]},
            "sliding_layers",
            1,
        ),
        ({"llama.attention.key_length": 128}, "head_dim", 128),
        ({"llama.pooling_type": 1}, "kind", ModelKind.EMBED),
        ({"llama.pooling_type": 4}, "kind", ModelKind.RERANK),
        ({"general.file_type": 15}, "quantisation", "Q4_K_M"),
        ({"general.file_type": 1}, "quantisation", ""),
        ({"llama.attention.kv_lora_rank": 512, "llama.rope.dimension_count": 64}, "qk_rope_head_dim", 64),
        ({"llama.expert_count": 8, "llama.expert_used_count": 2}, "experts_per_token", 2),
        ({"llama.full_attention_interval": 2}, "stateless_layers", 1),
        ({"general.file_type": [1]}, "quantisation", "Q4_1"),
    ],
)
def test_gguf_facts(extra: dict[str, object], field: str, value: object) -> None:
    assert getattr(gguf_facts.facts([read_gguf(gguf({**GGUF_LLAMA, **extra}))], "x"), field) == value


def test_gemma_slides_by_architecture() -> None:
    metadata = {
        "general.architecture": "gemma3",
        "gemma3.block_count": 34,
        "gemma3.attention.sliding_window": 1024,
    }
    assert gguf_facts.facts([read_gguf(gguf(metadata))], "x").sliding_layers == 29


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


def test_what_is_no_language_model() -> None:
    for metadata in (
        {"general.architecture": "clip"},
        {"general.architecture": "llama", "general.type": "mmproj"},
        {},
    ):
        with pytest.raises(ModelError, match=r"x\.gguf"):
            gguf_facts.facts([read_gguf(gguf(metadata))], "x.gguf")


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
