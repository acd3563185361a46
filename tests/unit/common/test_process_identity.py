"""Processes told apart by pid and start time."""

from __future__ import annotations

import os

from llmlaunch.common import process_identity
from llmlaunch.common.process_identity import ProcessId
from llmlaunch.supervision.processes import procs


def test_process_identity() -> None:
    me = process_identity.identify(os.getpid())
    assert me is not None
    assert me.alive
    assert not ProcessId(me.pid, me.started + 1).alive
    assert process_identity.identify(2**22 + 1) is None
    assert procs.environment(2**22 + 1) == {}
    assert os.getpid() in procs.descendants(os.getppid())
