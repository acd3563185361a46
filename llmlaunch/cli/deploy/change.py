"""What ``restart`` and ``down`` share: give a running deployment a command, and show what happens until it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from llmlaunch.cli.deploy.session import Session, SupervisorGone
from llmlaunch.cli.display.live_view import view
from llmlaunch.cli.display.progress import StartProgress
from llmlaunch.errors import NotRunningError

if TYPE_CHECKING:
    from llmlaunch.control.client import ControlClient


def apply_and_wait(
    client: ControlClient,
    wanted: Mapping[str, int] | Sequence[str],
    order: Callable[[], object],
    done: Callable[[StartProgress], bool],
    waiting_for: Callable[[StartProgress], str],
    timeout_s: float | None,
) -> StartProgress:
    """Call ``order`` and wait until ``done``, and show every change; returns the progress at that moment.

    Raises DeadlineError after ``timeout_s`` seconds, NotRunningError when the supervisor ends meanwhile.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    progress, shown = StartProgress(wanted), view()
    session = Session(client, progress, shown, since=client.status().seq)
    order()
    session.open()
    try:
        with shown.live(progress):
            session.wait(lambda: done(progress), deadline, lambda: waiting_for(progress))
    except SupervisorGone:
        raise NotRunningError(f"{client.name} was taken down in the meantime") from None
    return progress
