"""Sizes of what is loaded beside a model, from files on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmlaunch.models.companions import companion_facts
from llmlaunch.models.facts import Companion, CompanionRole
from tests.support.model_files import GGUF_LLAMA, gguf, llama_folder, safetensors

OFFLINE = {"HF_HUB_OFFLINE": "1"}


def size(role: CompanionRole, source: str, base: Path, env: dict[str, str] = OFFLINE) -> int | None:
    found = companion_facts(Companion(role, source), base, env)
    return found.weight_bytes if found else None


def test_a_projector(tmp_path: Path) -> None:
    (tmp_path / "mmproj.gguf").write_bytes(gguf({"general.architecture": "clip"}))
    assert size(CompanionRole.PROJECTOR, "mmproj.gguf", tmp_path) == 64 * 20
    assert size(CompanionRole.PROJECTOR, str(tmp_path / "mmproj.gguf"), Path("/")) == 64 * 20


def test_a_draft_model_has_a_shape(tmp_path: Path) -> None:
    (tmp_path / "draft.gguf").write_bytes(gguf(GGUF_LLAMA))
    found = companion_facts(Companion(CompanionRole.DRAFT, "./draft.gguf"), tmp_path, OFFLINE)
    assert found
    assert (found.layers, found.weight_bytes) == (2, 64 * 20)
    llama_folder(tmp_path / "draft")
    assert size(CompanionRole.DRAFT, "draft", tmp_path) == 64 * 16 * 2 + 64


def test_adapters(tmp_path: Path) -> None:
    (tmp_path / "style.gguf").write_bytes(gguf({"general.architecture": "llama", "general.type": "adapter"}))
    assert size(CompanionRole.ADAPTER, "style.gguf", tmp_path) == 64 * 20
    folder = tmp_path / "sql"
    folder.mkdir()
    assert size(CompanionRole.ADAPTER, "sql", tmp_path) is None
    content = safetensors({"lora_A": ("F32", (16, 8))})
    (folder / "adapter_model.safetensors").write_bytes(content)
    assert size(CompanionRole.ADAPTER, "sql", tmp_path) == len(content)


def test_an_adapter_in_the_hubs_cache(tmp_path: Path) -> None:
    root = tmp_path / "models--org--sql"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    (snapshot / "adapter_model.bin").write_bytes(bytes(100))
    assert size(CompanionRole.ADAPTER, "org/sql", tmp_path, {"HF_HUB_CACHE": str(tmp_path)}) == 100


@pytest.mark.parametrize("role", CompanionRole)
@pytest.mark.parametrize("source", ["none.gguf", "org/none", "~nosuchuser/x", "x" * 5000, "a\0b"])
def test_what_is_not_there_is_no_error(tmp_path: Path, role: CompanionRole, source: str) -> None:
    assert size(role, source, tmp_path, {**OFFLINE, "HF_HUB_CACHE": str(tmp_path)}) is None


def test_what_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "mmproj.gguf").write_bytes(b"nope")
    assert size(CompanionRole.PROJECTOR, "mmproj.gguf", tmp_path) is None
