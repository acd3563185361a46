"""``llmlaunch status``: what runs, how it is, and why something is down."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from llmlaunch.cli.deploy.select import FILE, NAME, deployment
from llmlaunch.cli.display import render, stdout
from llmlaunch.errors import NotRunningError

if TYPE_CHECKING:
    from llmlaunch.control.client import ControlClient

WATCH_S = 1.0
"""Seconds between two looks of ``--watch``."""


def status(
    file: str | None = FILE,
    name: str | None = NAME,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object (with --watch: one per line)."),
    watch: bool = typer.Option(False, "--watch", help="Refresh every second until Ctrl-C."),
) -> None:
    """Show what runs, how it is, and why something is down.

    Components with phase, address, GPUs, VRAM and restarts; GPUs; the endpoint.
    Exit code 0 when the deployment runs, whatever its components do; 3 when it does not.
    """
    show(file=file, name=name, as_json=as_json, watch=watch)


def show(*, file: str | None, name: str | None, as_json: bool, watch: bool) -> None:
    """The verb itself. Raises NotRunningError when there is no such deployment now."""
    from llmlaunch.control.client import ControlClient

    client = ControlClient.connect(deployment(file, name))
    if watch and not as_json and stdout.on_terminal():
        _watch_terminal(client)
    else:
        _print(client, as_json, compact=watch)
        while watch:
            time.sleep(WATCH_S)
            if not as_json:
                typer.echo()
            _print(client, as_json, compact=True)


def _print(client: ControlClient, as_json: bool, *, compact: bool) -> None:
    if as_json:
        typer.echo(stdout.as_json(client.status_json(), None if compact else 2))
    elif stdout.on_terminal():
        from llmlaunch.cli.display import tables

        tables.console().print(tables.status(client.status(), time.time()))
    else:
        typer.echo("\n".join(render.status_lines(client.status(), time.time())))


def _watch_terminal(client: ControlClient) -> None:
    from rich.live import Live

    from llmlaunch.cli.display import tables

    with Live(console=tables.console(), auto_refresh=False) as live:
        while True:
            try:
                live.update(tables.status(client.status(), time.time()), refresh=True)
            except NotRunningError:
                raise NotRunningError(
                    f"{client.name} went down", hint="llmlaunch up starts it again"
                ) from None
            time.sleep(WATCH_S)
