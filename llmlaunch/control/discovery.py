"""Which of this user's deployments run now."""

from __future__ import annotations

from llmlaunch import paths
from llmlaunch.control import supervisor_process
from llmlaunch.control.client import ControlClient
from llmlaunch.control.connection import NotAnsweringError
from llmlaunch.errors import ControlError, NotRunningError

_SOON_S = 2.0


def running_deployments() -> list[str]:
    """Names of this user's deployments that have a supervisor now, sorted."""
    names = []
    for name in paths.known_deployments():
        try:
            ControlClient.connect_now(name)
        except NotAnsweringError:
            pass
        except NotRunningError:
            if supervisor_process.supervisor_of(name) is None:
                continue
        except ControlError:
            continue
        names.append(name)
    return names


def manifest_of(name: str) -> str | None:
    """The file that the running deployment ``name`` was started from; None when it does not run, or does not say so at once."""
    try:
        return ControlClient.connect(name).about(_SOON_S).manifest
    except (NotRunningError, ControlError):
        return None
