"""A disk with logs that hangs: what happened is told with less words, and everybody else is looked after."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llmlaunch import paths
from llmlaunch.control import state_file
from llmlaunch.planning.types import Plan
from llmlaunch.supervision.core.restart import Policy
from llmlaunch.supervision.core.types import Phase
from llmlaunch.supervision.effects import ProcessEffects
from llmlaunch.supervision.file_threads import FileThreads
from llmlaunch.supervision.journal import Journal
from llmlaunch.supervision.logs import component_logs
from llmlaunch.supervision.loop import Supervisor
from tests.integration.supervision.world import QUICK, engine

POLICY = replace(Policy(), **{key: type(getattr(Policy(), key))(value) for key, value in QUICK.items()})


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.02)


def test_a_log_that_cannot_be_read_holds_up_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, hung = threading.Event(), list[str]()
    last_rows, write_state = component_logs.last_rows, state_file.write_state

    def hang(path: Path) -> list[str]:
        if "sick" in path.name:
            hung.append(path.name)
            disk.wait(30)
        return last_rows(path)

    def hang_too(where: paths.DeploymentPaths, state: state_file.SupervisorState) -> None:
        disk.wait(30)
        write_state(where, state)

    monkeypatch.setattr(component_logs, "last_rows", hang)
    monkeypatch.setattr(state_file, "write_state", hang_too)
    monkeypatch.setattr(FileThreads.run, "__defaults__", (0.3,))
    where = paths.DeploymentPaths("lab")
    for folder in (where.run, where.state, where.logs):
        paths.private_dir(folder)

    async def run() -> None:
        effects = ProcessEffects(where, POLICY, "run", "secret")
        supervisor = Supervisor("lab", effects, POLICY)
        journal = Journal(where, effects.last_lines)
        supervisor.on_change = journal.record
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, effects.running.reap)
        running = asyncio.create_task(supervisor.run())
        sick, well = engine("sick", "--fail-start"), engine("well", "--exit-after", "60")
        await supervisor.apply(Plan("lab", (sick, well), workdir=str(home)))
        await until(lambda: bool(hung), "a read hangs")
        await until(lambda: supervisor.slots["well"].record.phase is Phase.READY, "well is ready")
        await until(
            lambda: supervisor.slots["sick"].record.incarnation > 2, "sick is started again and again"
        )
        supervisor.shutdown()
        await asyncio.wait_for(running, 15)
        assert not disk.is_set()
        disk.set()
        await effects.close()

    asyncio.run(run())
