"""Vectors as sentence-transformers would make them, worked out step by step with plain transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llmlaunch.worker.engine import pooling
from llmlaunch.worker.engine.batch_inference import batches
from llmlaunch.worker.errors import StartupError
from tests.unit.worker import tiny

STATES = torch.tensor([[[1.0, -2.0], [3.0, 4.0], [9.0, 9.0]], [[1.0, 1.0], [2.0, 0.0], [6.0, 5.0]]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mean", [[2.0, 1.0], [3.0, 2.0]]),
        ("cls", [[1.0, -2.0], [1.0, 1.0]]),
        ("max", [[3.0, 4.0], [6.0, 5.0]]),
        ("lasttoken", [[3.0, 4.0], [6.0, 5.0]]),
        ("mean_sqrt_len", [[4 / 2**0.5, 2 / 2**0.5], [9 / 3**0.5, 6 / 3**0.5]]),
        ("weightedmean", [[7 / 3, 2.0], [23 / 6, 16 / 6]]),
    ],
)
def test_pooling(mode: str, expected: list[list[float]]) -> None:
    assert torch.allclose(pooling.pool(STATES, MASK, pooling.PoolingConfig((mode,))), torch.tensor(expected))


def test_modes_are_put_side_by_side_and_normalized() -> None:
    out = pooling.pool(STATES, MASK, pooling.PoolingConfig(("cls", "max"), normalize=True))
    assert out.shape == (2, 4)
    assert torch.allclose(out.norm(dim=-1), torch.ones(2))


def test_padding_on_the_left_is_seen() -> None:
    left = torch.tensor([[0, 1, 1]])
    assert pooling.pool(STATES[:1], left, pooling.PoolingConfig(("cls",))).tolist() == [[3.0, 4.0]]


def write(folder: Path, modules: list[tuple[str, str, dict[str, Any]]]) -> None:
    listed = []
    for index, (kind, path, config) in enumerate(modules):
        listed.append({"idx": index, "path": path, "type": f"sentence_transformers.models.{kind}"})
        (folder / path).mkdir(exist_ok=True)
        if path:
            (folder / path / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(json.dumps(listed))


def test_the_recipe_is_read_from_the_models_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        [
            ("Transformer", "", {}),
            ("Pooling", "1_Pooling", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}),
            ("Normalize", "2_Normalize", {}),
        ],
    )
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 77, "do_lower_case": true}')
    (tmp_path / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "query: "}, "default_prompt_name": "query"}'
    )
    config = pooling.read_config(tmp_path)
    assert config.modes == ("cls",)
    assert config.normalize
    assert config.longest == 77
    assert config.lower_case
    assert config.prompt == "query: "


def test_without_files_the_mean_is_taken(tmp_path: Path) -> None:
    assert pooling.read_config(tmp_path) == pooling.PoolingConfig()


def test_a_dense_step_is_applied(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    write(
        tmp_path,
        [
            ("Transformer", "", {}),
            ("Pooling", "1_Pooling", {"pooling_mode_mean_tokens": True}),
            ("Dense", "2_Dense", {"activation_function": "torch.nn.modules.activation.Tanh"}),
        ],
    )
    save_file(
        {"linear.weight": torch.tensor([[1.0, 1.0]]), "linear.bias": torch.tensor([0.5])},
        tmp_path / "2_Dense" / "model.safetensors",
    )
    out = pooling.pool(STATES, MASK, pooling.read_config(tmp_path))
    assert torch.allclose(out, torch.tanh(torch.tensor([[3.5], [5.5]])))


@pytest.mark.parametrize("kind", ["WeirdStep", "LSTM"])
def test_a_step_that_is_not_known_is_refused(tmp_path: Path, kind: str) -> None:
    write(tmp_path, [("Transformer", "", {}), (kind, "1_X", {})])
    with pytest.raises(StartupError, match=kind):
        pooling.read_config(tmp_path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(StartupError, match=r"modules\.json"):
        pooling.read_config(tmp_path)


def test_batches_are_of_similar_length_and_lose_nothing() -> None:
    lengths = [5, 100, 7, 90, 300, 6]
    groups = batches(lengths, 200)
    assert sorted(index for group in groups for index in group) == list(range(6))
    assert groups == [[4], [1, 3], [2, 5, 0]]


def test_a_batch_gives_what_each_text_gives_alone() -> None:
    from llmlaunch.worker.engine.embedder import Embedder

    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    torch.manual_seed(0)
    model = transformers.BertModel(config).eval()
    embedder = Embedder(model, pooling.PoolingConfig(normalize=True), tiny.never_lost)
    texts = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [12, 13]]
    together = torch.tensor(embedder.embed(texts))
    with torch.inference_mode():
        for row, ids in enumerate(texts):
            plain = model(torch.tensor([ids])).last_hidden_state.mean(1)
            plain = torch.nn.functional.normalize(plain, dim=-1)
            assert torch.allclose(together[row], plain[0], atol=1e-5)
    shorter = torch.tensor(embedder.embed(texts, dimensions=8))
    assert torch.allclose(shorter, torch.nn.functional.normalize(together[:, :8], dim=-1), atol=1e-6)
