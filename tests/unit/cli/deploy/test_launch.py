"""What ``up`` asks of the planner."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import typer

from llmlaunch import assemble, cli
from llmlaunch.cli import app
from llmlaunch.cli.deploy import launch, launched
from llmlaunch.cli.display.live_view import PlainView
from llmlaunch.control.client import ControlClient
from llmlaunch.errors import NotRunningError
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
    request = launched.UpOptions(str(file), "other", detach=True, wait=True, timeout_s=None)
    _, plan, _ = launch._plan(request, PlainView(lambda line: None))
    assert (asked, plan.deployment) == (["other"], "other")


class _Ending:
    """A supervisor that ends before it can be told to."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def shutdown(self, force: bool = False) -> None:
        self.asked.append(force)
        raise NotRunningError("the supervisor of 'lab' ended while it was asked")


def test_a_second_ctrl_c_may_come_when_there_is_nothing_left_to_kill() -> None:
    client = _Ending()
    launch._shut_down(cast("ControlClient", client), force=True)
    assert client.asked == [True]


def test_what_the_system_refuses_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> None:
        Path("/dev/null/x").read_text()

    with pytest.raises(typer.Exit) as end:
        app.guarded(verb)()
    assert end.value.exit_code == 1
    assert capsys.readouterr().err == "error: /dev/null/x: Not a directory\n"


def test_ctrl_c_while_modules_are_imported_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "run", interrupted)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130


def test_a_deleted_working_folder_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(typer.Exit) as end:
        app.guarded(Path.cwd)()
    assert end.value.exit_code == 1
    assert capsys.readouterr().err.startswith("error: the folder you are in was deleted\n")


def test_a_bug_in_a_folder_that_is_there_stays_a_bug() -> None:
    def verb() -> None:
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(FileNotFoundError):
        app.guarded(verb)()
