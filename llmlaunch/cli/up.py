"""``llmlaunch up``: make a deployment what its manifest says."""

from __future__ import annotations

import typer

from llmlaunch.cli.deploy.select import DEFAULT_FILE, check_name, timeout_option
from llmlaunch.errors import UsageError


def up(
    file: str = typer.Argument(DEFAULT_FILE, help="The manifest.", metavar="FILE"),
    detach: bool = typer.Option(
        False, "-d", "--detach", help="Run in the background; return when all is ready."
    ),
    no_wait: bool = typer.Option(
        False, "--no-wait", help="With -d: return at once, without waiting until all is ready."
    ),
    timeout: float | None = timeout_option("Give up after S seconds; exit code 4."),
    name: str | None = typer.Option(
        None, "--name", help="Use this deployment name instead of the manifest's.", metavar="NAME"
    ),
    replace: bool = typer.Option(
        False, "--replace", help="Replace a deployment of this name that was started from another file."
    ),
) -> None:
    """Start a deployment, or make a running one match the file.

    Of a running one only what differs is touched, and what is down comes back.

    In the foreground it stays attached and tells what changes. Ctrl-C takes everything down gracefully, a second Ctrl-C kills. A
    component that fails at its start is told with its last lines while the others go on; when nothing is left that can
    serve, everything is taken down and the exit code is 1.

    With -d it returns 0 when every component is ready, and 1 with the reason and the last lines as soon as one failed. The
    deployment is left as it is then, to be looked at: `llmlaunch status`, `logs`, `down`. Ctrl-C ends the waiting only.

    On a deployment that already runs (with -d, or in another terminal) the change is made and shown, then `up` returns.
    """
    from llmlaunch.cli.deploy.launch import launch
    from llmlaunch.cli.deploy.launched import UpOptions

    if no_wait and not detach:
        raise UsageError("--no-wait needs -d", hint="in the foreground `up` stays with what it started")
    if name is not None:
        check_name(name)
    raise typer.Exit(launch(UpOptions(file, name, detach, not no_wait, timeout, replace)))
