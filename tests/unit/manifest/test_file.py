"""The file itself: missing, unreadable, too large, not text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmlaunch.errors import ManifestError, Problem
from llmlaunch.manifest.file import MAX_BYTES
from llmlaunch.manifest.load import load


def refused(path: Path | str) -> Problem:
    with pytest.raises(ManifestError) as caught:
        load(path, {})
    (found,) = caught.value.problems
    return found


def test_a_missing_file_names_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_text("models: [a]\n")
    (tmp_path / "other.yml").write_text("models: [a]\n")
    found = refused(tmp_path / "deplyo.yaml")
    assert (found.line, found.column) == (0, 0)
    assert found.message == "no such file"
    assert found.suggestion == str(tmp_path / "deploy.yaml")
    assert str(found).startswith(f"{tmp_path / 'deplyo.yaml'}: no such file")


def test_a_missing_file_without_neighbours(tmp_path: Path) -> None:
    assert refused(tmp_path / "deploy.yaml").suggestion == ""
    assert refused(tmp_path / "no" / "deploy.yaml").suggestion == ""
    (tmp_path / "lab.yaml").write_text("")
    assert refused(tmp_path / "deploy.yaml").suggestion == str(tmp_path / "lab.yaml")


def test_a_folder(tmp_path: Path) -> None:
    assert refused(tmp_path).message == "this is a folder, not a file"
    (tmp_path / "deploy.yaml").write_text("models: [a]\n")
    assert refused(tmp_path).suggestion == str(tmp_path / "deploy.yaml")


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_bytes("# ä\nmodels: [ü".encode() + b"\xff]\n")
    found = refused(path)
    assert (found.line, found.column, found.message) == (2, 11, "the file is not UTF-8 text")


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_text("models: [a]\n" + "#" * MAX_BYTES)
    assert "larger than 1 MiB" in refused(path).message


def test_what_never_begins_or_never_ends(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert "it is a pipe or a device" in refused(path).message


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text("models: [a]\n")
    assert "cannot be read" in refused(file / "x.yaml").message
    assert "cannot be read" in refused("a" * 5000).message
    assert "cannot be read" in refused("a\0b").message
    assert "no such user" in refused("~nosuchuser/deploy.yaml").message


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodels: [a]\n")
    assert load(path, {}).served_names == ("a",)


def test_the_manifest_knows_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "My Lab 2.yaml").write_text("models: [./m, a]\napi: {api_keys_file: keys.txt}\n")
    monkeypatch.chdir(tmp_path)
    found = load("My Lab 2.yaml", {})
    assert (found.name, found.path) == ("my-lab-2", str(tmp_path / "My Lab 2.yaml"))
    assert [m.model for m in found.models] == [str(tmp_path / "m"), "a"]
    assert found.api.api_keys_file == str(tmp_path / "keys.txt")
    assert str(found.models[0].position) == "My Lab 2.yaml:1:10"
