"""Where a group of our own may be made, and that nothing else is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmlaunch.supervision.processes import cgroups


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "group" / "user").mkdir(parents=True)
    return tmp_path


def own(machine: Path, mounts: str, cgroup: str) -> Path | None:
    (machine / "proc" / "mounts").write_text(mounts)
    (machine / "proc" / "self" / "cgroup").write_text(cgroup)
    return cgroups.own(machine / "proc")


def test_the_group_of_this_process_is_found(machine: Path) -> None:
    mounts = f"proc /proc proc rw 0 0\ncgroup /x cgroup rw,cpu 0 0\ncgroup2 {machine}/group cgroup2 rw 0 0\n"
    assert own(machine, mounts, "4:memory:/pod\n0::/user\n") == machine / "group" / "user"
    assert own(machine, mounts, "0::/\n") == machine / "group"


@pytest.mark.parametrize("cgroup", ["", "4:memory:/pod\n", "0::/gone\n", "0::/../outside\n"])
def test_no_group_where_none_can_be_made(machine: Path, cgroup: str) -> None:
    assert own(machine, f"cgroup2 {machine}/group cgroup2 rw 0 0\n", cgroup) is None
    assert own(machine, "cgroup /x cgroup rw 0 0\n", "0::/user\n") is None
    assert cgroups.own(machine / "nowhere") is None


def test_a_group_that_cannot_be_killed_is_not_kept(tmp_path: Path) -> None:
    """An older kernel, or no such file system at all."""
    assert cgroups.make(tmp_path, "lab-w-1") == ""
    assert cgroups.make(tmp_path / "nowhere", "lab-w-1") == ""
    assert cgroups.make(None, "lab-w-1") == ""
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_groups_of_ours_is_killed_or_removed(tmp_path: Path) -> None:
    other, ours = tmp_path / "system.slice", tmp_path / "llmlaunch-lab-w-1"
    for folder in (other, ours):
        folder.mkdir()
        (folder / "cgroup.kill").touch()
        cgroups.kill(str(folder))
    cgroups.kill("")
    cgroups.kill(str(tmp_path / "llmlaunch-gone"))
    assert (other / "cgroup.kill").read_text() == ""
    assert (ours / "cgroup.kill").read_text() == "1"
    (other / "cgroup.kill").unlink()
    cgroups.remove(str(other))
    cgroups.remove(str(ours))
    assert other.exists()
    assert ours.exists(), "not empty"
    assert cgroups.pids(str(ours)) == []


def test_a_group_is_made_killed_and_removed_where_the_kernel_lets_us() -> None:
    parent = cgroups.own()
    group = cgroups.make(parent, f"test-{os.getpid()}")
    if not group:
        pytest.skip("no control groups of version 2 may be made here")
    try:
        assert cgroups.pids(group) == []
        cgroups.kill(group)
    finally:
        cgroups.remove(group)
    assert not Path(group).exists()
