from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from llmlaunch.cli.display.progress import StartProgress
from llmlaunch.control.types import ComponentStatus
from tests.unit.cli.values import API, CONTROLLER, NOW, event, report, worker


def start_progress(
    *rows: ComponentStatus, wanted: Mapping[str, int] | Iterable[str] = ("controller", "smollm2-1", "api")
) -> StartProgress:
    made = StartProgress(wanted)
    made.seed(report(*rows, seq=10))
    return made


def test_ready_when_every_component_is() -> None:
    made = start_progress(CONTROLLER, worker(phase="starting"), API)
    assert made.missing() == ["smollm2-1"]
    made.take(event(11, worker()))
    assert made.missing() == []
    assert made.settled()


def test_a_component_that_was_never_seen_is_missing() -> None:
    made = start_progress(CONTROLLER, API)
    assert made.missing() == ["smollm2-1"]
    assert made.ended() == ["smollm2-1"]
    assert made.settled(), "nobody waits for it for ever"
    assert made.reason("smollm2-1") == "smollm2-1: no longer part of the deployment"
    assert StartProgress(["x"]).reason("x") == "x: not started"
    assert StartProgress(["x"]).ended() == []


def test_an_event_older_than_the_report_changes_nothing_but_keeps_what_was_printed() -> None:
    made = start_progress(CONTROLLER, worker(), API)
    made.take(event(10, worker(phase="failed", cause="exit code 1"), NOW, "boom"))
    assert made.failed() == []
    assert made.tails == {"smollm2-1": ("boom",)}


def test_ready_in_a_life_that_is_over_does_not_count() -> None:
    made = start_progress(worker(incarnation=3), wanted={"smollm2-1": 4})
    assert made.missing() == ["smollm2-1"]
    made.take(event(11, worker(phase="failed", incarnation=3)))
    assert made.failed() == []
    made.take(event(12, worker(incarnation=4)))
    assert made.missing() == []


def test_one_that_waits_for_memory_in_vain_has_failed_though_it_was_never_started() -> None:
    made = start_progress(worker(phase="pending", incarnation=3), wanted={"smollm2-1": 4})
    made.take(event(11, worker(phase="failed", incarnation=3, why="memory")))
    assert made.failed() == ["smollm2-1"]
    assert made.settled()


def test_the_reason_has_the_cause_and_the_last_lines() -> None:
    made = start_progress(worker(phase="starting"))
    made.take(event(11, worker(phase="failed", cause="exit code 1"), NOW, "loading", "RuntimeError: boom"))
    assert (
        made.reason("smollm2-1")
        == "smollm2-1: failed: exit code 1; `llmlaunch restart smollm2-1` tries again\n  | loading\n  | RuntimeError: boom"
    )


@pytest.mark.parametrize(
    ("phases", "cannot_serve"),
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
def test_hopeless_is_when_nothing_can_serve_any_more(phases: dict[str, str], cannot_serve: bool) -> None:
    rows = [CONTROLLER, worker("smollm2-1"), worker("smollm2-2"), API]
    names = [row.name for row in rows]
    made = start_progress(*(replace(row, phase=phases.get(row.name, "ready")) for row in rows), wanted=names)
    assert made.cannot_serve() is cannot_serve


def test_what_will_be_tried_again_is_no_reason_to_end_what_has_been_up() -> None:
    rows = [
        CONTROLLER,
        API,
        worker("smollm2-1", "failed", next_try=NOW + 60),
        worker("smollm2-2", "failed", next_try=NOW + 9),
    ]
    made = start_progress(*rows, wanted=[row.name for row in rows])
    assert made.cannot_serve()
    assert not made.cannot_serve(for_good=True)
    for seq, name in enumerate(("smollm2-1", "smollm2-2"), 11):
        made.take(event(seq, worker(name, "failed")))
    assert made.cannot_serve(for_good=True)
    assert made.failed() == ["smollm2-1", "smollm2-2"]


def test_what_leaves_has_to_be_down_before_a_change_is_over() -> None:
    made = StartProgress(["smollm2-1"], removed=["old-1"])
    made.seed(report(worker(), worker("old-1", "stopping")))
    assert made.missing() == []
    assert not made.settled()
    made.take(event(11, worker("old-1", "stopped")))
    assert made.settled()


def test_standing_is_what_still_has_to_go() -> None:
    made = start_progress(CONTROLLER, worker(phase="stopping"), API, wanted=["smollm2-1", "gone"])
    assert made.not_down() == ["smollm2-1"]
    made.take(event(11, worker(phase="stopped")))
    assert made.not_down() == []


def test_a_clock_that_is_set_back_hides_no_change() -> None:
    made = start_progress(worker(phase="starting"), wanted=["smollm2-1"])
    made.take(event(11, worker(), NOW - 86400))
    assert made.missing() == []


@pytest.mark.parametrize("cause", ["stopped by command", "removed from the manifest"])
def test_what_somebody_else_stops_is_waited_for_no_longer(cause: str) -> None:
    made = start_progress(CONTROLLER, worker(phase="starting"), API)
    assert not made.settled()
    made.take(event(11, worker(phase="stopped", cause=cause)))
    assert made.ended() == ["smollm2-1"]
    assert made.settled()
    assert made.failed() == []
    assert made.reason("smollm2-1") == f"smollm2-1: stopped: {cause}"


def test_what_is_stopped_in_the_middle_of_a_restart_is_waited_for_no_longer() -> None:
    made = start_progress(worker(phase="stopping", incarnation=3), wanted={"smollm2-1": 4})
    assert not made.ended()
    made.take(event(11, worker(phase="stopped", incarnation=3)))
    assert made.ended() == ["smollm2-1"]


def test_what_somebody_else_brings_back_does_not_linger() -> None:
    made = StartProgress(["smollm2-1"], removed=["old-1"])
    made.seed(report(worker(), worker("old-1", "stopping")))
    made.take(event(1, worker("old-1", "starting", incarnation=2)))
    assert made.settled()


def test_what_somebody_else_starts_again_is_not_on_its_way_down() -> None:
    made = start_progress(worker(phase="stopping"), wanted=["smollm2-1"])
    assert made.stopping() == ["smollm2-1"]
    made.take(event(11, worker(phase="pending")))
    assert made.stopping() == []
    assert made.not_down() == ["smollm2-1"]
