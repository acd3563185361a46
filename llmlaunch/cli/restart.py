"""``llmlaunch restart``: end components and start them again, also those that failed."""

from __future__ import annotations

import typer

from llmlaunch.cli.deploy.select import FILE, NAME, complete_component, components, deployment, timeout_option
from llmlaunch.errors import StartError


def restart(
    names: list[str] = typer.Argument(
        help="Components, or models (all their replicas).",
        metavar="NAME",
        autocompletion=complete_component,
    ),
    file: str | None = FILE,
    name: str | None = NAME,
    no_wait: bool = typer.Option(False, "--no-wait", help="Return at once, without waiting."),
    timeout: float | None = timeout_option("Stop waiting after S seconds; exit code 4."),
) -> None:
    """Restart components, and wait until they are ready.

    Requests in flight finish first. What failed or was stopped starts again, with its count of failures at zero.
    """
    from llmlaunch.cli.deploy.change import apply_and_wait
    from llmlaunch.control.client import ControlClient

    client = ControlClient.connect(deployment(file, name))
    before = {c.name: c for c in client.status().components}
    chosen = components(names, list(before.values()))
    if no_wait:
        client.command("restart", chosen)
        typer.echo(f"restarting: {', '.join(chosen)}")
        return
    progress = apply_and_wait(
        client,
        {item: before[item].incarnation + 1 for item in chosen},
        lambda: client.command("restart", chosen),
        lambda progress: progress.settled(),
        lambda progress: "not ready:\n" + "\n".join(map(progress.reason, progress.missing())),
        timeout,
    )
    if lost := progress.failed() + progress.ended():
        raise StartError("\n".join(map(progress.reason, lost)), hint=f"llmlaunch logs {lost[0]}")
