"""Models in the cache of the Hugging Face hub, found without asking anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmlaunch.errors import ModelError
from llmlaunch.models.inspect import inspect
from llmlaunch.models.sources import huggingface_cache
from llmlaunch.models.sources.resolve import resolve
from tests.support.model_files import sharded_folder


def cached_model(cache: Path, model: str, commit: str = "a" * 40) -> Path:
    root = cache / f"models--{model.replace('/', '--')}"
    folder = sharded_folder(root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    return folder


def test_the_hub_cache_is_used_without_asking(tmp_path: Path) -> None:
    folder = cached_model(tmp_path, "org/tiny")
    env = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    facts = inspect("org/tiny", env=env)
    assert (facts.path, facts.local) == (str(folder), True)
    assert inspect("org/tiny", revision="a" * 40, env=env).path == str(folder)
    assert inspect("org/tiny", cache=tmp_path, env={"HF_HUB_OFFLINE": "1"}).path == str(folder)
    with pytest.raises(ModelError, match="does not have revision v2"):
        inspect("org/tiny", revision="v2", env=env)
    with pytest.raises(ModelError) as caught:
        inspect("org/tinny", env=env)
    assert "org/tiny" in caught.value.hint


def test_a_revision_cannot_leave_the_cache(tmp_path: Path) -> None:
    cached_model(tmp_path, "org/tiny")
    (tmp_path / "secret").write_text("b" * 40)
    place = resolve("org/tiny", revision="../../secret", env={"HF_HUB_CACHE": str(tmp_path)})
    assert not place.local


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"HF_HUB_CACHE": "/x"}, "/x"),
        ({"HF_HOME": "/y"}, "/y/hub"),
        ({"XDG_CACHE_HOME": "/z"}, "/z/huggingface/hub"),
    ],
)
def test_where_the_cache_is(env: dict[str, str], folder: str) -> None:
    assert str(huggingface_cache.folder(env)) == folder
