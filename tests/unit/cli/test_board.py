from __future__ import annotations

from dataclasses import replace

import pytest

from llmlaunch.cli.board import Board
from tests.unit.cli.values import API, CONTROLLER, NOW, event, report, worker


def board(*rows: object, wanted: object = ("controller", "smollm2-1", "api")) -> Board:
    made = Board(wanted)  # type: ignore[arg-type]
    made.seed(report(*rows), NOW)  # type: ignore[arg-type]
    return made


def test_ready_when_every_component_is() -> None:
    made = board(CONTROLLER, worker(phase="starting"), API)
    assert made.missing() == ["smollm2-1"]
    made.take(event(1, worker(), NOW + 1))
    assert made.missing() == []
    assert made.settled()


def test_a_component_that_was_never_seen_is_missing() -> None:
    made = board(CONTROLLER, API)
    assert made.missing() == ["smollm2-1"]
    assert made.reason("smollm2-1") == "smollm2-1: not started"


def test_an_event_older_than_the_report_changes_nothing_but_keeps_what_was_printed() -> None:
    made = board(CONTROLLER, worker(), API)
    made.take(event(1, worker(phase="failed", cause="exit code 1"), NOW - 1, "boom"))
    assert made.failed() == []
    assert made.tails == {"smollm2-1": ("boom",)}


def test_ready_in_a_life_that_is_over_does_not_count() -> None:
    made = board(worker(incarnation=3), wanted={"smollm2-1": 4})
    assert made.missing() == ["smollm2-1"]
    made.take(event(1, worker(phase="failed", incarnation=3), NOW + 1))
    assert made.failed() == []
    made.take(event(2, worker(incarnation=4), NOW + 2))
    assert made.missing() == []


def test_the_reason_has_the_cause_and_the_last_lines() -> None:
    made = board(worker(phase="starting"))
    made.take(event(1, worker(phase="failed", cause="exit code 1"), NOW + 1, "loading", "RuntimeError: boom"))
    assert made.reason("smollm2-1") == "smollm2-1: failed: exit code 1\n  | loading\n  | RuntimeError: boom"


@pytest.mark.parametrize(
    ("phases", "hopeless"),
    [
        ({}, False),
        ({"smollm2-1": "failed"}, False),
        ({"smollm2-1": "failed", "smollm2-2": "failed"}, True),
        ({"smollm2-1": "failed", "smollm2-2": "backoff"}, False),
        ({"smollm2-1": "failed", "smollm2-2": "stopped"}, True),
        ({"smollm2-1": "stopped", "smollm2-2": "stopped"}, False),
        ({"api": "failed"}, True),
        ({"api": "stopped"}, False),
        ({"controller": "failed"}, True),
    ],
)
def test_hopeless_is_when_nothing_can_serve_any_more(phases: dict[str, str], hopeless: bool) -> None:
    rows = [CONTROLLER, worker("smollm2-1"), worker("smollm2-2"), API]
    names = [row.name for row in rows]
    made = board(*(replace(row, phase=phases.get(row.name, "ready")) for row in rows), wanted=names)
    assert made.hopeless() is hopeless


def test_what_leaves_has_to_be_down_before_a_change_is_over() -> None:
    made = Board(["smollm2-1"], leaving=["old-1"])
    made.seed(report(worker(), worker("old-1", "stopping")), NOW)
    assert made.missing() == []
    assert not made.settled()
    made.take(event(1, worker("old-1", "stopped"), NOW + 1))
    assert made.settled()


def test_standing_is_what_still_has_to_go() -> None:
    made = board(CONTROLLER, worker(phase="stopping"), API, wanted=["smollm2-1", "gone"])
    assert made.standing() == ["smollm2-1"]
    made.take(event(1, worker(phase="stopped"), NOW + 1))
    assert made.standing() == []
