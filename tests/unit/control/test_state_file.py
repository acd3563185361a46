"""The state file: what is written is read again, also by the next version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmlaunch import paths
from llmlaunch.common.process_identity import ProcessId
from llmlaunch.control.state_file import SupervisedProcess, SupervisorState, read_state, write_state


def test_state_survives(home: Path) -> None:
    where = paths.DeploymentPaths("lab")
    assert read_state(where) is None
    kept = SupervisedProcess("w", 3, ProcessId(10, 99), None)
    family = (ProcessId(3, 4), ProcessId(5, 6))
    other = SupervisedProcess("x", 1, ProcessId(1, 1), ProcessId(2, 2), family)
    state = SupervisorState("run", ProcessId(1, 2), (kept, other), "boot", family)
    write_state(where, state)
    assert read_state(where) == state
    assert [p.name for p in where.state.iterdir()] == ["state.json"], "no half-written files"


def test_a_state_file_of_a_version_before_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the keys that every version wrote, and none of those that were added since."""
    monkeypatch.setenv("LLMLAUNCH_HOME", str(tmp_path))
    where = paths.DeploymentPaths("lab")
    process = {"pid": 10, "started": 99}
    kept = {"component": "w-1", "incarnation": 3, "shim": process, "program": None}
    paths.private_dir(where.state)
    where.state_file.write_text(json.dumps({"run": "r", "supervisor": process, "processes": [kept]}))
    state = SupervisorState("r", ProcessId(10, 99), (SupervisedProcess("w-1", 3, ProcessId(10, 99), None),))
    assert read_state(where) == state
    write_state(where, state)
    written = json.loads(where.state_file.read_text())
    assert written["processes"] == [kept | {"descendants": [], "cgroup": ""}], "a shim reads it, too"
