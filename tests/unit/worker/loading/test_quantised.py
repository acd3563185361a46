"""Packed weights: loaded where they can be, refused with one message where they cannot."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from llmlaunch.models.facts import ModelFacts
from llmlaunch.worker.compute import fused_layers, onednn_weights
from llmlaunch.worker.config import WorkerConfig
from llmlaunch.worker.engine.batching import ContinuousBatching
from llmlaunch.worker.errors import StartupError
from llmlaunch.worker.loading import loader
from llmlaunch.worker.loading.quantised import (
    LOAD_IN_PACKAGES,
    REQUIREMENTS,
    check_load_in,
    load_in_arguments,
)
from llmlaunch.worker.loading.quantised import check as check_packed
from llmlaunch.worker.loading.types import LoadedGenerator
from tests.unit.worker import tiny

PLAIN = ModelFacts(source="m", path="m", local=True, format="safetensors", weight_bytes=30 << 30)
CONFIG = WorkerConfig(model="m", names=("m",))


def packed(method: str) -> ModelFacts:
    return replace(PLAIN, quantisation=method)


def nothing(_: str) -> bool:
    return False


def everything(_: str) -> bool:
    return True


@pytest.mark.parametrize("method", sorted(name for name, need in REQUIREMENTS.items() if need.packages))
def test_what_misses_a_package_names_it(method: str) -> None:
    with pytest.raises(StartupError) as caught:
        check_packed(packed(method), "cuda", nothing)
    for _, pip in REQUIREMENTS[method].packages:
        assert pip in caught.value.message
        assert pip in (caught.value.hint or "")
    assert check_packed(packed(method), "cuda", everything) == ""


def test_what_needs_cuda_says_so_on_a_cpu() -> None:
    for method, need in REQUIREMENTS.items():
        if need.cuda:
            with pytest.raises(StartupError, match="CUDA"):
                check_packed(packed(method), "cpu", everything)
        else:
            check_packed(packed(method), "cpu", everything)


def test_what_is_not_known_is_refused_and_what_is_not_packed_is_not() -> None:
    with pytest.raises(StartupError, match="modelopt"):
        check_packed(packed("modelopt"), "cuda", everything)
    assert check_packed(PLAIN, "cpu", nothing) == ""
    assert check_packed(replace(packed("Q4_K_M"), format="gguf"), "cpu", nothing) == ""


def test_every_method_is_one_that_transformers_reads() -> None:
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    # Names as llmlaunch's inspection gives them, where they are not transformers' own.
    ours = {"bitsandbytes", "bitsandbytes-4bit", "bitsandbytes-8bit", "autoround"}
    assert set(REQUIREMENTS) - ours <= set(AUTO_QUANTIZER_MAPPING)


@pytest.mark.parametrize(("bits", "device"), sorted(LOAD_IN_PACKAGES))
def test_load_in_is_for_weights_that_are_not_packed_and_names_the_package_it_needs(
    bits: str, device: str
) -> None:
    with pytest.raises(StartupError, match="already quantised with gptq"):
        check_load_in(bits, packed("gptq"), device, everything)
    package = LOAD_IN_PACKAGES[bits, device]
    with pytest.raises(StartupError, match=package) as caught:
        check_load_in(bits, PLAIN, device, nothing)
    assert f"pip install {package}" in (caught.value.hint or "")
    check_load_in(bits, PLAIN, device, everything)


def test_without_load_in_nothing_is_packed() -> None:
    assert load_in_arguments(CONFIG, "cpu") == load_in_arguments(CONFIG, "cuda") == {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("bits", "error"), [("8bit", 0.02), ("4bit", 0.2)])
def test_weights_are_packed_on_a_cpu_and_answer_in_a_batch(bits: str, error: float, tmp_path: Path) -> None:
    """Runs where the package is installed."""
    pytest.importorskip(LOAD_IN_PACKAGES[bits, "cpu"])
    model = tiny.fresh("Llama", hidden_size=128, head_dim=32, intermediate_size=256)
    folder = tiny.save(model, tmp_path / "m")
    config = replace(
        CONFIG, model=str(folder), device="cpu", dtype="bfloat16", load_in=bits, max_concurrency=2
    )
    loaded = loader.load(config, lambda *_: None, lambda _: None, tiny.never_lost)
    assert isinstance(loaded, LoadedGenerator)
    try:
        assert loaded.mode == ContinuousBatching.mode
        strategy = loaded.engine._strategy
        assert isinstance(strategy, ContinuousBatching)
        made = strategy._model
        assert type(made.model.layers[0].mlp.up_proj.weight) is not torch.nn.Parameter
        x = torch.randn(3, 128, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            wanted = model.model.layers[0].mlp.up_proj(x)
            got = made.model.layers[0].mlp.up_proj(x.to(made.dtype)).float()
        assert (got - wanted).abs().mean() < error * wanted.abs().mean()
        run = tiny.Run(tiny.batching(made, rows=2))
        for at in range(3):
            run.add(tiny.request(f"r{at}", [5 + at] * 9, 6))
        run.finish()
        assert all(len(tokens) == 6 for tokens in run.tokens.values())
    finally:
        loaded.engine.stop()


def _fp8(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A tiny model whose projections are stored in fp8 blocks; and what these blocks stand for."""
    block = 16
    model = tiny.fresh("Llama", intermediate_size=64)
    tiny.save(model, folder)
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    stored: dict[str, torch.Tensor] = {}
    meant: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if not name.endswith("_proj.weight"):
            stored[name] = tensor
            continue
        rows, columns = tensor.shape
        blocks = tensor.reshape(rows // block, block, columns // block, block)
        scale = blocks.abs().amax((1, 3)) / 448
        stored[name] = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
        stored[name + "_scale_inv"] = scale
        meant[name] = (
            stored[name].float().reshape(blocks.shape) * scale[:, None, :, None]
        ).reshape(rows, columns)  # fmt: skip
    safetensors.torch.save_file(stored, file, metadata={"format": "pt"})
    settings: dict[str, Any] = json.loads((folder / "config.json").read_text())
    settings["quantization_config"] = {
        "quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [block, block],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    return folder, meant


def test_fp8_weights_are_unpacked_on_a_cpu_and_mean_what_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The weights keep the names that they have in the file.
    monkeypatch.setattr(fused_layers, "fuse", lambda _: 0)
    monkeypatch.setattr(onednn_weights, "is_faster", lambda _: False)
    folder, meant = _fp8(tmp_path / "fp8")
    config = replace(CONFIG, model=str(folder), device="cpu", max_concurrency=2)
    loaded = loader.load(config, lambda *_: None, lambda _: None, tiny.never_lost)
    assert isinstance(loaded, LoadedGenerator)
    try:
        assert loaded.facts.quantisation == "fp8"
        strategy = loaded.engine._strategy
        assert isinstance(strategy, ContinuousBatching)
        weights = strategy._model.state_dict()
        for name, expected in meant.items():
            assert torch.allclose(weights[name].float(), expected, rtol=1e-2, atol=1e-3), name
    finally:
        loaded.engine.stop()


@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "no_such_method"])
def test_a_packed_checkpoint_that_cannot_be_read_is_refused_before_its_weights_are(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlaunch.worker.loading.generator.load", lambda *_: pytest.fail("was loaded"))
    find = importlib.util.find_spec
    absent = {module for need in REQUIREMENTS.values() for module, _ in need.packages}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in absent else find(name, *rest)
    )
    folder = tiny.save(tiny.fresh("Llama"), tmp_path / "packed")
    settings = json.loads((folder / "config.json").read_text())
    settings["quantization_config"] = {"quant_method": method, "bits": 4}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(StartupError, match=f"quantised with {method}"):
        loader.load(
            replace(CONFIG, model=str(folder), device="cpu"), lambda *_: None, lambda _: None, tiny.never_lost
        )
