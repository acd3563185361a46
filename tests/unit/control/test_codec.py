"""The wire's JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmlaunch.control import codec
from llmlaunch.control.types import (
    ApiStatus,
    ApplyResult,
    ComponentStatus,
    GpuStatus,
    LastFailure,
    ProgressEvent,
    StatusReport,
    SupervisorStatus,
)
from llmlaunch.errors import ControlError

COMPONENT = ComponentStatus(
    "w", "worker", "m", ("n",), "vllm", "ready", 7, "http://h:1", ("GPU-1",), 5, None, 0, 1.5, "", "", 1
)


REPORT = StatusReport(
    "lab",
    SupervisorStatus(1, 2.0),
    ApiStatus("http://h:2"),
    (COMPONENT,),
    (GpuStatus(0, "GPU-1", "L4", 3, 2, 1, 0),),
)


def test_status_and_events_survive_the_wire() -> None:
    assert codec.status_from_json(codec.status_to_json(REPORT)) == REPORT
    event = ProgressEvent(3, 1.5, COMPONENT, ("last", "words"))
    assert codec.event_from_json(codec.event_to_json(event)) == event
    result = ApplyResult(("a",), (), ("b",), ())
    assert codec.apply_result_from_json(codec.apply_result_to_json(result)) == result


def test_the_last_failure_survives_the_wire_and_may_be_missing() -> None:
    last = LastFailure(1.5, 3, "exit", "was killed by SIGKILL", signal="SIGKILL", out_of_memory=True)
    report = replace(REPORT, components=(replace(COMPONENT, next_try=9.5, last=last),))
    data = codec.status_to_json(report)
    assert data["components"][0]["last"]["signal"] == "SIGKILL"
    assert codec.status_from_json(data) == report
    data["components"][0]["last"]["new"] = 1
    assert codec.status_from_json(data) == report, "a newer supervisor says more"
    del data["components"][0]["last"], data["components"][0]["next_try"]
    assert codec.status_from_json(data) == REPORT, "an older one says nothing of it"


def test_a_newer_supervisor_may_say_more_and_nobody_less() -> None:
    data = codec.status_to_json(REPORT)
    data["new"] = data["components"][0]["new"] = 1
    assert codec.status_from_json(data) == REPORT
    del data["components"][0]["phase"]
    with pytest.raises(ControlError, match="incomplete ComponentStatus"):
        codec.status_from_json(data)
    values: list[Any] = [None, [], "x", {"supervisor": 3}]
    for nonsense in values:
        with pytest.raises(ControlError):
            codec.status_from_json(nonsense)
