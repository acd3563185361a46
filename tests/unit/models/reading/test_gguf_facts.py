"""What a GGUF header says of its model."""

from __future__ import annotations

import pytest

from llmlaunch.errors import ModelError
from llmlaunch.models.facts import ModelKind
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
