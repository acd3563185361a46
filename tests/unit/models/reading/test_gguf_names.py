"""What the names of GGUF files say, as those who convert models write them."""

from __future__ import annotations

import pytest

from llmlaunch.errors import ModelError
from llmlaunch.models.reading.gguf_names import models, projector, quantisation, tagged

QWEN = [
    "Qwen3-8B-Q4_K_M.gguf",
    "Qwen3-8B-Q8_0.gguf",
    "Qwen3-8B-UD-Q4_K_XL.gguf",
    "Qwen3-8B-UD-IQ1_S.gguf",
    "Qwen3-8B-BF16.gguf",
    "config.json",
]
SPLIT = [
    "Q4_K_M/Big-Q4_K_M-00001-of-00002.gguf",
    "Q4_K_M/Big-Q4_K_M-00002-of-00002.gguf",
    "Q8_0/Big-Q8_0-00001-of-00002.gguf",
    "Q8_0/Big-Q8_0-00002-of-00002.gguf",
]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("llama-2-7b.Q5_0.gguf", "Q5_0"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("GLM-4.6-UD-Q2_K_XL-00001-of-00003.gguf", "UD-Q2_K_XL"),
        ("Meta-Llama-3-8B-IQ4_XS.gguf", "IQ4_XS"),
        ("model-f16.gguf", "F16"),
        ("model.fp16.gguf", "FP16"),
        ("BF16/model-00001-of-00002.gguf", "BF16"),
        ("TQ1_0-model.gguf", "TQ1_0"),
        ("model.gguf", ""),
        ("qwen2-7b.gguf", ""),
    ],
)
def test_the_quantisation(name: str, kind: str) -> None:
    assert quantisation(name) == kind


@pytest.mark.parametrize(
    ("names", "tag", "file"),
    [
        (QWEN, "Q4_K_M", QWEN[0]),
        (QWEN, "q8_0", QWEN[1]),
        (QWEN, "latest", QWEN[0]),
        (QWEN, "UD-Q4_K_XL", QWEN[2]),
        (QWEN, "Q4_K_XL", QWEN[2]),  # as llama.cpp finds it
        (QWEN, "bf16", QWEN[4]),
        (SPLIT, "Q8_0", SPLIT[2]),
        ([*QWEN, "mmproj-Q8_0.gguf"], "Q8_0", QWEN[1]),
    ],
)
def test_a_tag_names_one_file(names: list[str], tag: str, file: str) -> None:
    assert tagged(names, tag, "org/name") == file


@pytest.mark.parametrize(
    ("names", "tag", "message"),
    [
        (QWEN, "Q5_K_M", "org/name: has no GGUF file that is Q5_K_M"),
        (["a-Q8_0.gguf", "b-Q8_0.gguf"], "Q8_0", "several GGUF files are Q8_0: a-Q8_0.gguf, b-Q8_0.gguf"),
        (["model.safetensors"], "Q8_0", "org/name: holds no GGUF file"),
    ],
)
def test_a_tag_that_names_none_or_several(names: list[str], tag: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        tagged(names, tag, "org/name")
    assert message in caught.value.message
    assert caught.value.hint


def test_models_are_neither_projectors_nor_parts() -> None:
    assert models([*SPLIT, "mmproj-f16.gguf", "Big-mmproj-f16.gguf", "x.txt"]) == [SPLIT[0], SPLIT[2]]


@pytest.mark.parametrize(
    ("model", "names", "found"),
    [
        ("m-Q4_K_M.gguf", ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-F32.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf"),
        ("m-Q4_K_M.gguf", ["m-Q4_K_M.gguf", "mmproj-model-odd.gguf"], "mmproj-model-odd.gguf"),
        ("Q8_0/m-Q8_0-00001-of-00002.gguf", ["Q8_0/m-Q8_0-00001-of-00002.gguf", "mmproj-m-bf16.gguf"], "mmproj-m-bf16.gguf"),
        # A folder of many models: only what bears its name.
        ("a-Q8_0.gguf", ["a-Q8_0.gguf", "b-Q8_0.gguf", "mmproj-b-f16.gguf"], ""),
        ("b-Q8_0.gguf", ["a-Q8_0.gguf", "b-Q8_0.gguf", "mmproj-b-f16.gguf"], "mmproj-b-f16.gguf"),
        ("b-Q8_0.gguf", ["a-Q8_0.gguf", "b-Q8_0.gguf", "b.mmproj-f16.gguf"], "b.mmproj-f16.gguf"),
        ("m.gguf", ["m.gguf", "other/mmproj-f16.gguf"], ""),
        ("m.gguf", ["m.gguf"], ""),
    ],
)  # fmt: skip
def test_the_projector_that_belongs_to_a_model(model: str, names: list[str], found: str) -> None:
    assert projector(model, names) == found
