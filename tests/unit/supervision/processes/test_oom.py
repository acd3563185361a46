"""Whose count of killed processes is read, and what it says of a death."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmlaunch.supervision.processes.oom import OomCount

CASES = {
    "v2": ("0::/user.slice/lab\n", "user.slice/lab/memory.events", "low 0\nmax 9\noom 3\noom_kill {}\noom_group_kill 0\n"),
    "v2 in a group without the controller": ("0::/pod/llmlaunch-w\n", "pod/memory.events", "oom_kill {}\n"),
    "v2 in a container": ("0::/\n", "memory.events", "oom_kill {}\n"),
    "v1": (
        "9:cpu:/\n4:memory:/pod/abc\n0::/\n",
        "memory/pod/abc/memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
    ),
    "v1 in a container": ("4:memory:/pod/abc\n", "memory/memory.oom_control", "under_oom 0\noom_kill {}\n"),
}  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "cgroup").mkdir()
    return tmp_path


def counting(machine: Path) -> OomCount:
    return OomCount(7, machine / "proc", machine / "cgroup")


def write(machine: Path, file: str, text: str) -> None:
    path = machine / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(("cgroup", "file", "text"), CASES.values(), ids=CASES)
def test_the_count_of_its_own_cgroup_comes_before_the_machines(
    machine: Path, cgroup: str, file: str, text: str
) -> None:
    write(machine, "proc/7/cgroup", cgroup)
    write(machine, f"cgroup/{file}", text.format(4))
    write(machine, "proc/vmstat", "oom_kill 0\n")
    count = counting(machine)
    assert not count.rose()
    write(machine, "proc/vmstat", "oom_kill 1\n")
    assert not count.rose(), "somebody else's"
    write(machine, f"cgroup/{file}", text.format(5))
    assert count.rose()


def test_the_machines_count_where_no_cgroup_tells(machine: Path) -> None:
    write(machine, "proc/7/cgroup", "0::/gone\n")
    write(machine, "proc/vmstat", "nr_free_pages 8\noom_kill 2\n")
    count = counting(machine)
    write(machine, "proc/vmstat", "nr_free_pages 7\noom_kill 3\n")
    assert count.rose()


def test_what_was_counted_long_before_is_none_of_this_death(machine: Path) -> None:
    write(machine, "proc/vmstat", "oom_kill 2\n")
    count = counting(machine)
    write(machine, "proc/vmstat", "oom_kill 3\n")
    count.look()
    assert count.rose(), "its parent may have needed a moment to end"
    for _ in range(3):
        count.look()
    assert not count.rose()


@pytest.mark.parametrize("text", ["", "oom_kill\n", "oom_kill many\n", "nothing of the kind\n", "\0\xff"])
def test_a_kernel_that_does_not_count_says_nothing(machine: Path, text: str) -> None:
    assert not counting(machine).rose()
    write(machine, "proc/7/cgroup", text)
    write(machine, "proc/vmstat", text)
    assert not counting(machine).rose()


def test_this_machine_can_be_read() -> None:
    import os

    assert not OomCount(os.getpid()).rose()
