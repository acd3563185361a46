"""The cores of this machine or container."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from llmlaunch.hardware import cores


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups; this process is in /a/b, on a machine with eight cores."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("1:cpuset:/\n0::/a/b\n")
    root = tmp_path / "cgroup"
    (root / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8)
    return root


def usable(groups: Path) -> int:
    return cores.usable_cores(groups.parent / "proc", groups)


def test_without_a_quota_all_cores(groups: Path) -> None:
    assert usable(groups) == 8
    (groups / "a" / "b" / "cpu.max").write_text("max 100000")
    assert usable(groups) == 8


@pytest.mark.parametrize("group", [".", "a", "a/b"])
def test_a_quota_of_any_group_around_this_process(groups: Path, group: str) -> None:
    (groups / group / "cpu.max").write_text("300000 100000")
    assert usable(groups) == 3


def test_a_quota_of_version_1(groups: Path) -> None:
    (groups / "cpu").mkdir()
    (groups / "cpu" / "cpu.cfs_quota_us").write_text("400000\n")
    (groups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable(groups) == 4


def test_two_measurements_move_on() -> None:
    before, now = cores.measure(), cores.measure()
    assert now.wall >= before.wall
    assert now.own >= before.own
