"""Where things live on disk, with and without LLMLAUNCH_HOME."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llmlaunch import paths
from llmlaunch.errors import UsageError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LLMLAUNCH_HOME", "LLMLAUNCH_CACHE", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(paths, "SYSTEMD_FOLDERS", str(tmp_path / "user"))


def test_everything_is_under_home_when_it_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMLAUNCH_HOME", str(tmp_path / "h"))
    lab = paths.DeploymentPaths("lab")
    places = (lab.socket, lab.lock, lab.state_file, lab.supervisor_log, paths.cache_root(), lab.log("w-1", 3))
    assert all(place.is_relative_to(tmp_path / "h") for place in places)


def test_a_relative_home_means_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMLAUNCH_HOME", "here")
    assert paths.state_root() == tmp_path / "here" / "state"


def test_xdg_folders_without_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert paths.state_root() == tmp_path / "s" / "llmlaunch"
    assert paths.run_root() == tmp_path / "llmlaunch"
    assert paths.cache_root() == tmp_path / ".cache" / "llmlaunch"


def test_relative_xdg_values_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "nonsense")
    assert paths.state_root() == tmp_path / ".local" / "state" / "llmlaunch"


def test_no_runtime_dir_falls_back_to_the_state_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert paths.run_root() == paths.state_root() / "run"
    ours = tmp_path / "user" / str(os.getuid())
    ours.mkdir(parents=True)
    assert paths.run_root() == ours / "llmlaunch", "the same as in a login shell, which has the variable"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "absent"))
    assert paths.run_root() == paths.state_root() / "run"


def test_a_home_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMLAUNCH_HOME", "~nosuchuser/x")
    with pytest.raises(UsageError, match="the home folder of ~nosuchuser"):
        paths.state_root()


def test_the_cache_can_be_shared_between_homes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMLAUNCH_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("LLMLAUNCH_CACHE", str(tmp_path / "c"))
    assert paths.cache_root() == tmp_path / "c"


def test_known_deployments_are_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMLAUNCH_HOME", str(tmp_path))
    assert paths.known_deployments() == []
    for name in ("b", "a"):
        paths.private_dir(paths.DeploymentPaths(name).run)
    (paths.run_root() / "file").touch()
    assert paths.known_deployments() == ["a", "b"]


def test_private_dirs_are_private(tmp_path: Path) -> None:
    loose = tmp_path / "d"
    loose.mkdir(mode=0o755)
    assert stat.S_IMODE(paths.private_dir(loose).stat().st_mode) == 0o700
