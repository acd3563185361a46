"""The supervisor's answers as JSON and back. Unknown keys are ignored, so that a newer supervisor can say more."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, TypeVar

from llmlaunch.control.types import (
    About,
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

_T = TypeVar("_T")


def status_to_json(report: StatusReport) -> dict[str, Any]:
    """The public shape of ``llmlaunch status --json``."""
    return asdict(report)


def status_from_json(data: Any) -> StatusReport:
    """The inverse of :func:`status_to_json`. Raises ControlError when ``data`` is no status."""
    given = _known(StatusReport, data)
    return _make(
        StatusReport,
        given
        | {
            "supervisor": _make(SupervisorStatus, given.get("supervisor")),
            "api": _make(ApiStatus, given.get("api")),
            "components": tuple(_component(c) for c in given.get("components", ())),
            "gpus": tuple(_make(GpuStatus, g) for g in given.get("gpus", ())),
        },
    )


def about_to_json(about: About) -> dict[str, Any]:
    """The JSON that the supervisor sends."""
    return asdict(about)


def about_from_json(data: Any) -> About:
    """From the JSON that a client received. Raises ControlError when something is missing."""
    return _make(About, data)


def apply_result_to_json(result: ApplyResult) -> dict[str, Any]:
    """The JSON that the supervisor sends."""
    return asdict(result)


def apply_result_from_json(data: Any) -> ApplyResult:
    """From the JSON that a client received. Raises ControlError when something is missing."""
    return _make(ApplyResult, {key: tuple(value) for key, value in _known(ApplyResult, data).items()})


def event_to_json(event: ProgressEvent) -> dict[str, Any]:
    """As a line of the progress stream."""
    return asdict(event)


def event_from_json(data: Any) -> ProgressEvent:
    """From a line of the progress stream. Raises ControlError when something is missing."""
    given = _known(ProgressEvent, data)
    return _make(
        ProgressEvent,
        given
        | {"component": _component(given.get("component")), "log_tail": tuple(given.get("log_tail", ()))},
    )


def _component(data: Any) -> ComponentStatus:
    given = _known(ComponentStatus, data)
    last = given.get("last")
    return _make(
        ComponentStatus,
        given
        | {
            "names": tuple(given.get("names", ())),
            "gpus": tuple(given.get("gpus", ())),
            "last": None if last is None else _make(LastFailure, last),
        },
    )


def _known(kind: Any, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ControlError(
            f"the supervisor's response is not a {kind.__name__}",
            hint="it may run another version of llmlaunch",
        )
    names = {f.name for f in fields(kind)}
    return {key: value for key, value in data.items() if key in names}


def _make(kind: type[_T], data: Any) -> _T:
    try:
        return kind(**_known(kind, data))
    except TypeError as error:
        raise ControlError(f"the supervisor sent an incomplete {kind.__name__}: {error}") from None
