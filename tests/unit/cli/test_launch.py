"""What ``up`` asks of the planner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmlaunch import assemble
from llmlaunch.cli import launch
from llmlaunch.cli.views import PlainView
from llmlaunch.manifest.load import load
from llmlaunch.planning.types import Plan


def test_the_planner_knows_the_name_that_was_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path
) -> None:
    """What already runs on the GPUs is recognised by the deployment's name."""
    file = tmp_path / "lab.yaml"
    file.write_text("models: [{model: x, engine: command, command: [x]}]\n")
    asked: list[Any] = []

    def made(path: str, *, name: str, **rest: Any) -> tuple[Any, None, Plan]:
        asked.append(name)
        return load(path, {}), None, Plan(name, ())

    monkeypatch.setattr(assemble, "assemble", made)
    request = launch.Request(str(file), "other", detach=True, wait=True, timeout_s=None)
    _, plan, _ = launch._plan(request, PlainView(lambda line: None))
    assert (asked, plan.deployment) == (["other"], "other")
