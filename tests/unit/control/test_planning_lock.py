"""Plans are made one at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from llmlaunch import paths
from llmlaunch.control import planning_lock as module
from llmlaunch.control.planning_lock import planning_lock


def never() -> None:
    raise AssertionError("nobody else plans")


def test_turns_are_taken_one_after_the_other(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAY_AFTER_S", 0.0)
    waits, order = threading.Event(), list[str]()

    def second() -> None:
        with planning_lock(waits.set):
            order.append("second")

    other = threading.Thread(target=second)
    with planning_lock(never):
        other.start()
        assert waits.wait(10)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]


def test_a_turn_that_never_ends_keeps_nobody_out_for_ever(home: Path) -> None:
    with planning_lock(never), planning_lock(lambda: None, patience_s=0.1):
        pass


def test_where_no_lock_can_be_kept_nobody_waits(home: Path) -> None:
    paths.state_root().parent.mkdir(parents=True, exist_ok=True)
    paths.state_root().write_text("a file where the folder should be")
    with planning_lock(never):
        pass
