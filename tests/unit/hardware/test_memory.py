"""Main memory, and what control groups leave of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmlaunch.hardware.memory import MainMemory, main_memory

GIB = 1 << 30
MEMINFO = "MemTotal:       125829120 kB\nMemFree:         1000000 kB\nMemAvailable:   104857600 kB\nHugePages_Total:       0\n"


def read(folder: Path, files: dict[str, str]) -> MainMemory:
    """The main memory of a machine with these files besides its ``/proc/meminfo``."""
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return main_memory(folder / "proc", folder / "groups")


def test_a_machine_without_limits(tmp_path: Path) -> None:
    found = read(tmp_path, {"proc/self/cgroup": "0::/user.slice\n", "groups/user.slice/memory.max": "max\n"})
    assert found == MainMemory(total=120 * GIB, limit=120 * GIB, available=100 * GIB)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(
            {
                "groups/memory.max": str(32 * GIB),
                "groups/memory.current": str(20 * GIB),
                "groups/memory.stat": f"anon 1\ninactive_file {5 * GIB}\nactive_file {3 * GIB}\n",
            },
            id="a container, version 2",
        ),
        pytest.param(
            {
                "groups/memory/memory.limit_in_bytes": str(32 * GIB),
                "groups/memory/memory.usage_in_bytes": str(20 * GIB),
                "groups/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {5 * GIB}\ntotal_active_file {3 * GIB}\n",
            },
            id="a container, version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/job\n3:cpu,cpuacct:/other\n",
                "groups/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "groups/memory/job/memory.limit_in_bytes": str(32 * GIB),
                "groups/memory/job/memory.usage_in_bytes": str(12 * GIB),
            },
            id="a batch job, version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/system.slice/llm.service\n",
                "groups/system.slice/memory.max": str(32 * GIB),
                "groups/system.slice/memory.current": str(12 * GIB),
                "groups/system.slice/llm.service/memory.max": "max",
            },
            id="a limit further out",
        ),
    ],
)
def test_a_control_group_limits_it(tmp_path: Path, files: dict[str, str]) -> None:
    assert read(tmp_path, files) == MainMemory(total=120 * GIB, limit=32 * GIB, available=20 * GIB)


def test_a_limit_beyond_what_is_free(tmp_path: Path) -> None:
    found = read(tmp_path, {"groups/memory.max": str(110 * GIB), "groups/memory.current": str(GIB)})
    assert found == MainMemory(total=120 * GIB, limit=110 * GIB, available=100 * GIB)


def test_this_machine() -> None:
    here = main_memory()
    assert 0 < here.available <= here.limit <= here.total
