"""What a GGUF header says of its model."""

from __future__ import annotations

import pytest

from llmlaunch.errors import ModelError
from llmlaunch.models.facts import LayerWeights, ModelKind
from llmlaunch.models.reading import gguf_facts, gguf_header
from tests.support.model_files import GGUF_LLAMA, gguf


def read_gguf(content: bytes) -> gguf_header.GgufHeader:
    return gguf_header.read_prefixes(lambda n: content[:n], len(content), "x.gguf")


@pytest.mark.parametrize(
    ("extra", "field", "value"),
    [
        ({"llama.pooling_type": 1}, "kind", ModelKind.EMBED),
        ({"llama.pooling_type": 4}, "kind", ModelKind.RERANK),
        ({"general.file_type": 15}, "quantisation", "Q4_K_M"),
        ({"general.file_type": 1}, "quantisation", ""),
        ({"llama.expert_count": 8, "llama.expert_used_count": 2}, "experts_per_token", 2),
        ({"general.file_type": [1]}, "quantisation", "Q4_1"),
    ],
)
def test_gguf_facts(extra: dict[str, object], field: str, value: object) -> None:
    assert getattr(gguf_facts.facts([read_gguf(gguf({**GGUF_LLAMA, **extra}))], "x"), field) == value


def test_what_is_no_language_model() -> None:
    for metadata in (
        {"general.architecture": "clip"},
        {"general.architecture": "llama", "general.type": "mmproj"},
        {},
    ):
        with pytest.raises(ModelError, match=r"x\.gguf"):
            gguf_facts.facts([read_gguf(gguf(metadata))], "x.gguf")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([{"split.count": 3, "split.no": 0}], "x.gguf is part 1 of 3 of a split model"),
        ([{"split.count": 3, "split.no": 1}], "x.gguf is part 2 of 3 of a split model"),
        ([{"split.count": 3, "split.no": 0}, {}], "part 1 of 3 of a split model, and 2 of them are there"),
        ([{"split.count": 2, "split.no": 1}, {}], "part 2 of 2"),
        (
            [{"split.count": 2, "split.no": 0, "split.tensors.count": 5}, {}],
            "its 2 parts hold 2 tensors, and the first says 5",
        ),
    ],
)
def test_parts_of_a_split_model_are_counted(parts: list[dict[str, object]], words: str) -> None:
    headers = [read_gguf(gguf({**GGUF_LLAMA, **part})) for part in parts]
    with pytest.raises(ModelError) as caught:
        gguf_facts.facts(headers, "x.gguf")
    assert words in caught.value.message


@pytest.mark.parametrize(
    "part", [{"split.count": 1, "split.no": 0}, {"split.count": 0}, {"split.count": "3"}]
)
def test_a_whole_file_may_say_so(part: dict[str, object]) -> None:
    assert gguf_facts.facts([read_gguf(gguf({**GGUF_LLAMA, **part}))], "x.gguf").layers == 2


def test_weights_of_layers_and_of_their_experts() -> None:
    tensors = {
        "token_embd.weight": (0, (32,), 128),
        "blk.0.attn_q.weight": (0, (16,), 64),
        "blk.0.ffn_up_exps.weight": (0, (32,), 128),
        "blk.1.ffn_down_exps.weight": (0, (8,), 32),
        "blk.7.attn_q.weight": (0, (8,), 32),
    }
    found = gguf_facts.facts([read_gguf(gguf(GGUF_LLAMA, tensors))], "x.gguf")
    assert found.layer_weights == (LayerWeights(192, 128), LayerWeights(32, 32))
    assert gguf_facts.facts([read_gguf(gguf(GGUF_LLAMA))], "x.gguf").layer_weights == ()
