"""Looking around a folder that holds no model."""

from __future__ import annotations

from pathlib import Path

from llmlaunch.models.sources.incomplete import dangling_links, further_down


def test_models_are_named_as_the_folder_was(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", ".hidden", "blobs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    assert further_down("./top/", tmp_path) == "did you mean ./top/a or ./top/b or ./top/c?"


def test_folders_far_below_are_not_looked_into(tmp_path: Path) -> None:
    deep = tmp_path / "1" / "2" / "3"
    deep.mkdir(parents=True)
    (deep / "x.gguf").touch()
    assert further_down("m", tmp_path) == "did you mean m/1/2/3?"
    assert further_down("m", tmp_path / "none") == ""
    (deep / "4").mkdir()
    (deep / "x.gguf").rename(deep / "4" / "x.gguf")
    assert further_down("m", tmp_path) == ""


def test_links_that_lead_somewhere_are_no_reason(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to("there")
    assert dangling_links(tmp_path) == ""
    assert dangling_links(tmp_path / "none") == ""
