"""The ``llmlaunch`` command: its verbs, and the one place where an error becomes a message and an exit code.

A verb is one line in :data:`VERBS` and one file beside this one, with a function of the verb's name. A verb's module imports
typer and ``errors`` at its top and everything else inside its function, so that ``llmlaunch status`` pays for nothing it does
not use. For the same reason only the verb that was asked for is registered: typer prepares every option of every verb, and
that costs as much again as the verb itself.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import typer
import typer.core

from llmlaunch import __version__
from llmlaunch.cli.fast_status import StatusOptions, status_options
from llmlaunch.common.terminal_text import visible
from llmlaunch.errors import LlmlaunchError

DEPLOY = "Deployments"
LOOK = "Before you start"
TALK = "Talk to it"
PARTS = "Components by hand"
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

VERBS = {
    "up": DEPLOY,
    "status": DEPLOY,
    "logs": DEPLOY,
    "restart": DEPLOY,
    "down": DEPLOY,
    "plan": LOOK,
    "validate": LOOK,
    "gpus": LOOK,
    "schema": LOOK,
    "test": TALK,
    "chat": TALK,
    "controller": PARTS,
    "worker": PARTS,
    "api": PARTS,
}
"""Verb → the group it stands under in the help. Verb ``x`` is the function ``x`` in ``llmlaunch/cli/x.py``."""

HELP = """Turn a list of models and a box of GPUs into one OpenAI-compatible endpoint, and keep it up.

Exit codes: 0 done · 1 it failed · 2 the command line or the manifest is wrong · 3 not running (status) · 4 the --timeout is over ·
130 Ctrl-C."""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"llmlaunch {__version__}")
        raise typer.Exit


def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Options that stand before the verb."""


class VerbCommand(typer.core.TyperCommand):
    """A command whose usage line reads like other programs': typer writes ``{MODEL}`` for what must be given."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The pieces of the usage line, without braces."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


def build(verbs: Iterable[str] = tuple(VERBS)) -> typer.Typer:
    """The command with these verbs. A pipe gets plain help and errors, a terminal gets panels."""
    app = typer.Typer(
        name="llmlaunch",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich" if sys.stderr.isatty() else None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=HELP,
    )
    app.callback()(root)
    for verb in verbs:
        module = importlib.import_module(f"llmlaunch.cli.{verb}")
        app.command(verb, cls=VerbCommand, rich_help_panel=VERBS[verb])(guarded(getattr(module, verb)))
    return app


def guarded(verb: Callable[..., Any]) -> Callable[..., Any]:
    """``verb`` with its errors turned into one message and an exit code."""

    @functools.wraps(verb)
    def run_verb(*args: Any, **kwargs: Any) -> Any:
        try:
            try:
                return verb(*args, **kwargs)
            finally:
                sys.stdout.flush()  # while a failure can still be reported
        except LlmlaunchError as error:
            raise typer.Exit(fail(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            reader_left()
        except OSError as error:
            # A folder that may not be entered, a disk that is full: what the system says is the whole story.
            if error.filename is None:
                if isinstance(error, FileNotFoundError) and _folder_is_gone():
                    gone = LlmlaunchError("the folder you are in was deleted", hint="cd to another folder")
                    raise typer.Exit(fail(gone)) from None
                raise
            raise typer.Exit(fail(LlmlaunchError(f"{error.filename}: {error.strerror}"))) from None

    return run_verb


def _folder_is_gone() -> bool:
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return True
    return False


def reader_left() -> NoReturn:
    """Exit quietly, as a program before ``| head`` should."""
    give_up_stdout()
    raise typer.Exit(141)


def give_up_stdout() -> None:
    """Send everything printed from here on to /dev/null."""
    # The interpreter flushes stdout once more when it ends; that must not fail a second time.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(error: LlmlaunchError) -> int:
    """Print ``error`` to stderr and return its exit code."""
    colour = None if not os.environ.get("NO_COLOR") else False
    # Messages hold what engines printed and what other programs call themselves.
    lines = visible(error.message).splitlines() or [""]
    typer.echo(typer.style("error: ", fg="red") + lines[0], err=True, color=colour)
    for line in lines[1:]:
        typer.echo(f"       {line}", err=True, color=colour)
    for number, line in enumerate(visible(error.hint).splitlines()):
        typer.echo(
            (typer.style("hint:  ", fg="yellow") if not number else "       ") + line, err=True, color=colour
        )
    return error.exit_code


def run() -> None:
    """Run the verb that ``sys.argv`` names, and exit."""
    words = sys.argv[1:]
    try:
        if options := status_options(words):
            sys.exit(_status(options))
        build(words[:1] if words and words[0] in VERBS else VERBS)()
    except OSError as error:
        if error.errno not in DISK_IS_FULL or error.filename is not None:
            raise
        give_up_stdout()
        sys.exit(fail(LlmlaunchError(f"cannot print: {error.strerror}")))


def _status(options: StatusOptions) -> int:
    from llmlaunch.cli.status import show

    try:
        guarded(show)(**options)
    except typer.Exit as end:
        return int(end.exit_code)
    return 0
