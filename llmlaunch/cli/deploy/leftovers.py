"""Processes that a supervisor left behind: a deployment is not reported as down while there are any."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmlaunch.errors import ControlError

if TYPE_CHECKING:
    from llmlaunch.control.client import ControlClient

GONE_DEADLINE_S = 10.0
"""How long the supervisor may take to exit once everything is down and its socket is closed."""


def wait_until_gone(client: ControlClient) -> None:
    """Wait until the supervisor has ended, and end what it left behind. Raises ControlError when something cannot be ended."""
    from llmlaunch.common.process_identity import identify

    # What still answers may be the next one, started by somebody else.
    if not client.wait_gone(GONE_DEADLINE_S) and identify(client.supervisor_pid):
        raise ControlError(
            f"the supervisor of {client.name!r} (pid {client.supervisor_pid}) took everything down but does not exit",
            hint=f"kill -9 {client.supervisor_pid} ends it",
        )
    end_leftovers(client.name)


def end_leftovers(deployment: str) -> int:
    """End what a killed supervisor left behind; returns the number of processes. Raises ControlError when one cannot be ended."""
    from llmlaunch.paths import DeploymentPaths
    from llmlaunch.supervision.processes.crash_recovery import clean_unless_running

    cleaned = clean_unless_running(DeploymentPaths(deployment))
    if cleaned.left:
        pids = ", ".join(str(process.pid) for process in cleaned.left)
        raise ControlError(
            f"these processes of {deployment!r} cannot be killed, not even with SIGKILL: {pids}",
            hint="the kernel is waiting for something on their behalf, a disk or a driver: `ps -o pid,stat,wchan,cmd` shows it",
        )
    return cleaned.ended


def kill_supervisor(deployment: str) -> bool:
    """SIGKILL a supervisor that does not answer, then what it leaves. False when its process is unknown."""
    import os
    import signal

    from llmlaunch.control.supervisor_process import supervisor_of

    supervisor = supervisor_of(deployment)
    if supervisor is None:
        return False
    os.kill(supervisor.pid, signal.SIGKILL)
    # Its shims end their process trees when the pipe to it breaks. What they leave is found by its ancestry.
    end = time.monotonic() + GONE_DEADLINE_S
    while supervisor.alive and time.monotonic() < end:
        time.sleep(0.02)
    end_leftovers(deployment)
    return True


def deployments_with_leftovers() -> list[str]:
    """Names of deployments whose supervisor did not shut down cleanly and had processes, sorted."""
    from llmlaunch.paths import DeploymentPaths, state_root

    try:
        names = sorted(folder.name for folder in state_root().iterdir() if folder.is_dir())
    except OSError:
        return []
    return [name for name in names if DeploymentPaths(name).state_file.exists()]
