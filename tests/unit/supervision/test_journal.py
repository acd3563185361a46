"""What the supervisor remembers of its components, as it is told."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from llmlaunch import paths
from llmlaunch.control.types import (
    LastFailure,
)
from llmlaunch.supervision.core.reconcile import Slot
from llmlaunch.supervision.core.types import Death, Phase, Record, Why
from llmlaunch.supervision.journal import Journal
from tests.unit.supervision.histories import spec


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
