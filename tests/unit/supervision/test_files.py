"""Logs, the state file, learned memory, and the wire's JSON."""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmlaunch import paths
from llmlaunch.common import process_identity
from llmlaunch.common.process_identity import ProcessId
from llmlaunch.control import codec, state_file
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
from llmlaunch.supervision import control_socket
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.core.types import Death, Phase, Record, Why
from llmlaunch.supervision.gpu import measured_vram
from llmlaunch.supervision.journal import Journal
from llmlaunch.supervision.logs import component_logs
from llmlaunch.supervision.processes import procs
from llmlaunch.supervision.processes.log_writer import LogWriter
from tests.unit.supervision.histories import spec

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


def test_the_journal_tells_the_calendars_time_of_the_last_failure_and_of_the_next_try(home: Path) -> None:
    journal = Journal(paths.DeploymentPaths("lab"), lambda name, incarnation: [])
    now = time.monotonic()
    death = Death(2, now - 60, Why.EXIT, "was killed by SIGKILL", -9, True, "bye")
    record = Record(phase=Phase.FAILED, incarnation=3, since=now, deadline=now + 30, last=death)
    told = journal.component(Slot(record, spec("w")), None)
    assert told.last is not None
    assert told.last == LastFailure(
        told.last.at, 2, "exit", "was killed by SIGKILL", None, "SIGKILL", True, "bye"
    )
    assert told.last.at == pytest.approx(time.time() - 60, abs=5)
    assert told.next_try == pytest.approx(time.time() + 30, abs=5)
    ready = journal.component(Slot(replace(record, phase=Phase.READY), spec("w")), None)
    assert (ready.next_try, ready.last) == (None, told.last), "a deadline of READY is none of a try"
    code = replace(record, last=replace(death, code=7, out_of_memory=False), deadline=None)
    told = journal.component(Slot(code, spec("w")), None)
    assert told.last is not None
    assert (told.last.exit_code, told.last.signal, told.next_try) == (7, None, None)


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


def live(incarnation: int, printed: str, most: int = 1000, keep: int = 3) -> None:
    with component_logs.target(paths.DeploymentPaths("lab"), "w-1", incarnation, most, keep) as target:
        LogWriter(target.folder, target.name, target.most, target.keep).write(printed.encode())


def test_logs_are_private_numbered_and_few(home: Path) -> None:
    for incarnation in range(1, 15):
        live(incarnation, f"life {incarnation}\n")
    (paths.DeploymentPaths("lab").logs / "w-1.1.000001.log").write_text("of component w-1.1")
    files = component_logs.log_files("lab", "w-1")
    assert len(files) == component_logs.KEPT
    assert component_logs.components("lab") == ["w-1", "w-1.1"]
    assert component_logs.tail(files[-1], 5) == ["life 14"]
    assert component_logs.last_incarnation("lab", "w-1") == 14
    assert component_logs.last_incarnation("lab", "other") == 0
    assert component_logs.log_files("nowhere", "w") == []
    assert stat.S_IMODE(files[-1].stat().st_mode) == 0o600


def test_earlier_lives_together_keep_no_more_than_one(home: Path) -> None:
    folder = paths.DeploymentPaths("lab").logs
    for incarnation in range(1, 8):
        live(incarnation, f"life {incarnation} {'x' * 90}\n" * 40)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2 * 3 * 1000
    assert component_logs.last_incarnation("lab", "w-1") == 7
    assert component_logs.tail(component_logs.log_files("lab", "w-1")[-2], 1)[0].startswith("life 6")


def test_a_folder_that_takes_no_logs_costs_them_and_nothing_else(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, **rest: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with component_logs.target(paths.DeploymentPaths("lab"), "w-1", 1, 1000, 3) as target:
        assert target.words == ("-1", "w-1.000001.log", "1000", "3")
        assert target.descriptors == ()


def test_tails(tmp_path: Path) -> None:
    file = tmp_path / "log"
    assert component_logs.tail(file, 5) == []
    file.write_bytes(b"one\ntwo\r\n 10%\r 50%\r100%\nbad \xff byte\n\n\n")
    assert component_logs.tail(file, 3) == ["two", "100%", "bad \ufffd byte"]
    assert component_logs.tail(file, 0) == []
    file.write_text("x" * 100_000 + "\nlast\n")
    assert component_logs.tail(file, 5) == ["last"], "a line that was cut at its front is not shown"


def test_state_survives(home: Path) -> None:
    where = paths.DeploymentPaths("lab")
    assert state_file.read_state(where) is None
    kept = state_file.SupervisedProcess("w", 3, ProcessId(10, 99), None)
    family = (ProcessId(3, 4), ProcessId(5, 6))
    other = state_file.SupervisedProcess("x", 1, ProcessId(1, 1), ProcessId(2, 2), family)
    state = state_file.SupervisorState("run", ProcessId(1, 2), (kept, other), "boot", family)
    state_file.write_state(where, state)
    assert state_file.read_state(where) == state
    assert [p.name for p in where.state.iterdir()] == ["state.json"], "no half-written files"


def test_learned_memory_adds_up_and_forgives_nonsense(home: Path) -> None:
    assert measured_vram.load_measurements() == {}
    measured_vram.record_measurement("a", 5)
    measured_vram.record_measurement("b", 6)
    measured_vram.record_measurement("a", 7)
    assert measured_vram.load_measurements() == {"a": 7, "b": 6}
    measured_vram.measurements_file().write_text('{"a": "x", "b": -1, "c": true, "d": 4}')
    assert measured_vram.load_measurements() == {"d": 4}


def test_a_lock_has_one_holder(home: Path) -> None:
    where = paths.DeploymentPaths("lab")
    first = control_socket.take_lock(where)
    with pytest.raises(control_socket.AlreadyRunningError):
        control_socket.take_lock(where)
    os.close(first)
    os.close(control_socket.take_lock(where))


def test_process_identity() -> None:
    me = process_identity.identify(os.getpid())
    assert me is not None
    assert me.alive
    assert not ProcessId(me.pid, me.started + 1).alive
    assert process_identity.identify(2**22 + 1) is None
    assert procs.environment(2**22 + 1) == {}
    assert os.getpid() in procs.descendants(os.getppid())


def test_a_full_disk_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not component_logs.disk_is_full(tmp_path)
    assert not component_logs.disk_is_full(tmp_path / "nothing")
    full = os.statvfs_result((4096, 4096, 16, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    assert component_logs.disk_is_full(tmp_path)
