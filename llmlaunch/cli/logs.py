"""``llmlaunch logs``: what components printed, in this life or the one before."""

from __future__ import annotations

import typer

from llmlaunch.cli.deploy.select import NAME, complete_component, deployment


def logs(
    names: list[str] = typer.Argument(
        None,
        help="Components, or models (all their replicas), or `supervisor`. Default: all components.",
        metavar="NAME",
        autocompletion=complete_component,
    ),
    follow: bool = typer.Option(False, "-f", "--follow", help="Follow new output, across restarts."),
    previous: bool = typer.Option(False, "--previous", "-p", help="Show the life before the last start."),
    lines: int | None = typer.Option(
        None, "-n", "--lines", min=0, help="Show only the last LINES lines of each.", metavar="LINES"
    ),
    raw: bool = typer.Option(False, "--raw", help="Print the output unchanged, control characters included."),
    file: str | None = typer.Option(
        None, "--file", help="The manifest whose deployment is meant.", metavar="FILE"
    ),
    name: str | None = NAME,
) -> None:
    r"""Show what components printed, also when they are down.

    Several are told apart by a prefix. Control characters are shown as ^[ or \x9b, because a terminal would obey them.

    -f follows; a manifest is given as --file here.
    """
    from llmlaunch.cli.display import log_tail as tail

    chosen = deployment(file, name, stopped_too=True)
    sources = tail.sources(chosen, names or [])
    tail.show(chosen, sources, lines=lines, previous=previous, follow=follow, raw=raw, out=typer.echo)
