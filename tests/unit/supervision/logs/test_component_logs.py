"""What components printed: private, bounded, and no reason not to run."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from llmlaunch import paths
from llmlaunch.supervision.logs import component_logs
from llmlaunch.supervision.processes.log_writer import LogWriter


def live(incarnation: int, printed: str, most: int = 1000, keep: int = 3) -> None:
    with component_logs.target(paths.DeploymentPaths("lab"), "w-1", incarnation, most, keep) as target:
        LogWriter(target.folder, target.name, target.most, target.keep).write(printed.encode())


def test_logs_are_private_numbered_and_few(home: Path) -> None:
    for incarnation in range(1, 15):
        live(incarnation, f"life {incarnation}\n")
    (paths.DeploymentPaths("lab").logs / "w-1.1.000001.log").write_text("of component w-1.1")
    files = component_logs.log_files("lab", "w-1")
    assert len(files) == component_logs.KEPT
    assert component_logs.components("lab") == ["w-1", "w-1.1"]
    assert component_logs.last_rows(files[-1]) == ["life 14"]
    assert component_logs.last_incarnation("lab", "w-1") == 14
    assert component_logs.last_incarnation("lab", "other") == 0
    assert component_logs.log_files("nowhere", "w") == []
    assert stat.S_IMODE(files[-1].stat().st_mode) == 0o600


def test_earlier_lives_together_keep_no_more_than_one(home: Path) -> None:
    folder = paths.DeploymentPaths("lab").logs
    for incarnation in range(1, 8):
        live(incarnation, f"life {incarnation} {'x' * 90}\n" * 40)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2 * 3 * 1000
    assert component_logs.last_incarnation("lab", "w-1") == 7
    assert component_logs.last_rows(component_logs.log_files("lab", "w-1")[-2])[-1].startswith("life 6")


def test_a_folder_that_takes_no_logs_costs_them_and_nothing_else(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, **rest: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with component_logs.target(paths.DeploymentPaths("lab"), "w-1", 1, 1000, 3) as target:
        assert target.arguments == ("-1", "w-1.000001.log", "1000", "3")
        assert target.descriptors == ()


def test_tails(tmp_path: Path) -> None:
    file = tmp_path / "log"
    assert component_logs.last_rows(file) == []
    file.write_bytes(b"one\ntwo\r\n 10%\r 50%\r100%\nbad \xff byte\n\n\n")
    assert component_logs.last_rows(file)[-3:] == ["two", "100%", "bad \ufffd byte"]
    file.write_text("x" * 2_000_000 + "\nlast\n")
    assert component_logs.last_rows(file) == ["last"], "a line that was cut at its front is not shown"


def test_a_full_disk_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not component_logs.disk_is_full(tmp_path)
    assert not component_logs.disk_is_full(tmp_path / "nothing")
    full = os.statvfs_result((4096, 4096, 16, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    assert component_logs.disk_is_full(tmp_path)
