"""Models on ModelScope, through a stand-in for its package."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.errors import ModelError
from llmlaunch.manifest.types import Source
from llmlaunch.models.inspect import inspect
from llmlaunch.models.sources.fetch import fetch
from tests.support.model_files import llama_folder


class FakeModelScope:
    """The three calls of the modelscope package that are used, over a folder that plays the site."""

    def __init__(self, site: Path, cache: Path) -> None:
        self.site, self.cache = site, cache

    def snapshot_download(
        self, model_id: str, revision: str | None = None, local_files_only: bool = False,
        allow_patterns: Any = None, progress_callbacks: Any = (),
    ) -> str:  # fmt: skip
        if local_files_only and not self.cache.exists():
            raise ValueError("Cannot find the requested files in the cached path")
        if not local_files_only:
            self.cache.mkdir()
            for name in allow_patterns:
                content = (self.site / name).read_bytes()
                (self.cache / name).write_bytes(content)
                for callback in progress_callbacks:
                    bar = callback(name, len(content))
                    bar.update(len(content))
                    bar.end()
        return str(self.cache)

    def model_file_download(self, model_id: str, file_path: str, revision: str | None = None) -> str:
        return str(self.site / file_path)

    def get_model_files(
        self, model_id: str, revision: str | None = None, recursive: bool = False
    ) -> list[dict[str, Any]]:
        if model_id != "org/tiny":
            raise RuntimeError("404: the model does not exist")
        return [{"Path": p.name, "Size": p.stat().st_size, "Type": "blob"} for p in self.site.iterdir()]


@pytest.fixture
def modelscope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeModelScope:
    fake = FakeModelScope(llama_folder(tmp_path / "site"), tmp_path / "ms-cache")
    for name, attribute, value in (
        ("modelscope", "", None),
        ("modelscope.hub", "", None),
        ("modelscope.hub.snapshot_download", "snapshot_download", fake.snapshot_download),
        ("modelscope.hub.file_download", "model_file_download", fake.model_file_download),
        ("modelscope.hub.api", "HubApi", lambda: fake),
    ):
        module = types.ModuleType(name)
        if attribute:
            setattr(module, attribute, value)
        monkeypatch.setitem(sys.modules, name, module)
    return fake


def test_modelscope(modelscope: FakeModelScope) -> None:
    env = {"LLMLAUNCH_USE_MODELSCOPE": "1"}
    facts = inspect("org/tiny", env=env)
    assert (facts.hub, facts.local, facts.layers, facts.format) == ("modelscope", False, 2, "safetensors")
    assert facts.weight_bytes == (modelscope.site / "model.safetensors").stat().st_size
    seen: list[tuple[int, int]] = []
    path = fetch(facts, lambda done, total, what: seen.append((done, total)))
    assert seen[0] == (0, facts.download_bytes)
    assert seen[-1] == (facts.download_bytes, facts.download_bytes)
    assert len(seen) > 2
    assert inspect("org/tiny", source=Source.MODELSCOPE, env={}).path == str(path)


def test_modelscope_does_not_know_it(modelscope: FakeModelScope) -> None:
    with pytest.raises(ModelError, match=r"ModelScope: 404") as caught:
        inspect("org/none", source=Source.MODELSCOPE, env={})
    assert "local folder" in caught.value.message
