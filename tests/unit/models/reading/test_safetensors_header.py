"""Headers of safetensors: sound ones give sizes, broken ones one ModelError that names the file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from llmlaunch.errors import ModelError
from llmlaunch.models.reading import gguf_header, safetensors_header
from llmlaunch.models.reading.safetensors_header import Tensor, summarise
from tests.support.model_files import safetensors


def write(tmp_path: Path, content: bytes, name: str = "model.safetensors") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


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
