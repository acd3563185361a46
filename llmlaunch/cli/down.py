"""``llmlaunch down``: take a deployment down, or a part of it."""

from __future__ import annotations

import contextlib
import time
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

from llmlaunch.cli.deploy.select import FILE, NAME, complete_component, components, deployment, timeout_option
from llmlaunch.errors import ControlError, DeadlineError, NotRunningError

if TYPE_CHECKING:
    from llmlaunch.control.client import ControlClient
    from llmlaunch.control.supervisor_process import UnreachableError


FORCE = "`llmlaunch down --force` kills what is left"


class Part(StrEnum):
    """What ``--component`` may name."""

    CONTROLLER = "controller"
    WORKER = "worker"
    API = "api"
    ALL = "all"


def down(
    names: list[str] = typer.Argument(
        None,
        help="Components, or models (all their replicas). Default: everything, the supervisor too.",
        metavar="NAME",
        autocompletion=complete_component,
    ),
    component: Part | None = typer.Option(None, "--component", help="All components of this kind."),
    file: str | None = FILE,
    name: str | None = NAME,
    timeout: float | None = timeout_option("Stop waiting after S seconds; exit code 4."),
    force: bool = typer.Option(False, "--force", help="Kill at once: no draining, no grace period."),
) -> None:
    """Take everything down, or a part, and wait until it is gone.

    Requests in flight finish, processes end, ports and VRAM are free.

    With names or --component only these stop; the rest goes on, and `up` brings them back.
    What does not run is already down: that is said, and the exit code is 0.
    """
    from llmlaunch.control.client import ControlClient
    from llmlaunch.control.connection import NotAnsweringError
    from llmlaunch.control.supervisor_process import ForeignError, UnreachableError

    try:
        which = deployment(file, name)
        client = ControlClient.connect(which)
        if names or component not in (None, Part.ALL):
            _stop(client, names or [], component, timeout)
        else:
            _shut_down(client, timeout, force=force)
    except ForeignError:
        raise  # it runs, so it must not be reported as down
    except UnreachableError as error:
        if names or component not in (None, Part.ALL):
            raise
        _end_by_signals(which, error, timeout, force=force)
    except NotRunningError as error:
        _end_what_is_left(file, name, error.message)
    except NotAnsweringError as error:
        if names or component not in (None, Part.ALL) or not force:
            raise
        _kill(which, error)


def _kill(which: str, error: ControlError) -> None:
    """Kill a deployment whose supervisor does not answer."""
    from llmlaunch.cli.deploy.leftovers import kill_supervisor

    if not kill_supervisor(which):
        raise error
    typer.echo(f"{error.message}: killed it; {which} is down")


def _end_by_signals(which: str, error: UnreachableError, timeout_s: float | None, *, force: bool) -> None:
    """Take down a deployment whose supervisor runs but can only be reached by signals."""
    import os
    import signal

    from llmlaunch.cli.deploy.leftovers import GONE_DEADLINE_S, end_leftovers
    from llmlaunch.control.supervisor_process import supervisor_of

    typer.echo(f"note: {error.message}")
    os.kill(error.pid, signal.SIGTERM)
    if force:
        os.kill(error.pid, signal.SIGINT)  # the second one kills; two of a kind might count as one
    began = time.monotonic()
    deadline = None if timeout_s is None else began + timeout_s
    while (supervisor := supervisor_of(which)) and supervisor.pid == error.pid:
        if force and time.monotonic() - began > GONE_DEADLINE_S:
            os.kill(error.pid, signal.SIGKILL)  # it ignores the signals; whatever it leaves is ended below
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineError("timed out; the supervisor is still running", hint=FORCE)
        time.sleep(0.05)
    end_leftovers(which)
    typer.echo(f"{which} is down")


def _end_what_is_left(file: str | None, name: str | None, why: str) -> None:
    """No supervisor runs. One that was killed together with its helpers may have left processes."""
    from llmlaunch.cli.deploy.leftovers import deployments_with_leftovers, end_leftovers
    from llmlaunch.control.discovery import running_deployments

    given = file is not None or name is not None
    names = [] if given else deployments_with_leftovers()
    if given:
        with contextlib.suppress(NotRunningError):  # another file's has its name, as was said
            names = [deployment(file, name)]
    ended = {which: end_leftovers(which) for which in names}
    for which, count in ended.items():
        if count:
            what = "a process" if count == 1 else f"{count} processes"
            typer.echo(f"{which}: ended {what} left behind by a killed supervisor")
    if not any(ended.values()):
        typer.echo(f"{why}: nothing to take down")
        if name is None and (running := running_deployments()):
            typer.echo(f"note: running: {', '.join(running)}; --name NAME means one of these")


def _stop(client: ControlClient, words: list[str], part: Part | None, timeout_s: float | None) -> None:
    from llmlaunch.cli.deploy.change import apply_and_wait

    known = client.status().components
    chosen = set(components(words, known))
    if part is not None:
        chosen |= {c.name for c in known if part is Part.ALL or c.component == part.value}
    wanted = [c.name for c in known if c.name in chosen]
    progress = apply_and_wait(
        client,
        wanted,
        lambda: client.command("stop", wanted),
        lambda progress: not progress.stopping(),
        lambda progress: f"still going down: {', '.join(progress.stopping())}",
        timeout_s,
    )
    if again := progress.not_down():
        raise ControlError(
            f"started again in the meantime: {', '.join(again)}",
            hint="another `llmlaunch up` or `restart` was at work",
        )


def _shut_down(client: ControlClient, timeout_s: float | None, *, force: bool) -> None:
    from llmlaunch.cli.deploy.leftovers import wait_until_gone
    from llmlaunch.cli.deploy.session import Session, SupervisorGone
    from llmlaunch.cli.display.live_view import view
    from llmlaunch.cli.display.progress import StartProgress
    from llmlaunch.control.connection import NotAnsweringError

    shown = view()
    try:
        before = client.status()
    except NotAnsweringError:
        raise
    except ControlError as error:
        shown.say(f"note: {error.message}")
        _shut_down_unseen(client, timeout_s, force=force)
        return
    progress = StartProgress(c.name for c in before.components)
    session = Session(client, progress, shown, since=before.seq)
    session.open()
    client.shutdown(force=force)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        with shown.live(progress):
            session.wait(
                lambda: False, deadline, lambda: f"still going down: {', '.join(progress.not_down())}"
            )
    except SupervisorGone:
        wait_until_gone(client)
        shown.say(f"{client.name} is down")
    except DeadlineError as error:
        raise DeadlineError(error.message, hint=FORCE) from None


def _shut_down_unseen(client: ControlClient, timeout_s: float | None, *, force: bool) -> None:
    """Take down a deployment whose status cannot be read."""
    from llmlaunch.cli.deploy.leftovers import wait_until_gone

    client.shutdown(force=force)
    while not client.wait_gone(timeout_s if timeout_s is not None else 3600.0):
        if timeout_s is not None:
            raise DeadlineError("timed out; the supervisor is still running", hint=FORCE)
    wait_until_gone(client)
    typer.echo(f"{client.name} is down")
