"""The ``llmlaunch`` command: its verbs, and the one place where an error becomes a message and an exit code.

A verb's module imports typer and ``errors`` at its top and everything else inside its function, so that
``llmlaunch status`` pays for nothing it does not use.
"""

from __future__ import annotations

import sys

import typer

from llmlaunch import __version__
from llmlaunch.errors import LlmlaunchError

app = typer.Typer(
    name="llmlaunch",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn a list of models and a box of GPUs into one OpenAI-compatible endpoint, and keep it up.",
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"llmlaunch {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Options that stand before the verb."""


def fail(error: LlmlaunchError) -> int:
    """Print ``error`` to stderr and return its exit code."""
    lines = error.message.splitlines() or [""]
    typer.secho(f"error: {lines[0]}", fg="red", err=True)
    for line in lines[1:]:
        typer.secho(f"       {line}", err=True)
    if error.hint:
        typer.secho(f"hint:  {error.hint}", fg="yellow", err=True)
    return error.exit_code


def run() -> None:
    """Run the verb that ``sys.argv`` names, and exit."""
    try:
        app()
    except LlmlaunchError as error:
        sys.exit(fail(error))
    except BrokenPipeError:
        sys.exit(141)
