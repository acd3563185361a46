"""The loop of ``llmlaunch chat``: read a line, stream the answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

from llmlaunch.cli.talk.conversation import HELP, ChatCommand, Conversation, parse
from llmlaunch.cli.talk.endpoint import Endpoint, RequestError, name_hint
from llmlaunch.common.terminal_text import visible
from llmlaunch.errors import LlmlaunchError, UsageError


def check_model(endpoint: Endpoint, model: str) -> None:
    """Raise UsageError with the nearest name when the endpoint does not serve ``model`` now."""
    listed = endpoint.names()
    if listed is not None and model not in listed:
        raise UsageError(f"{model!r} is not being served", hint=name_hint(model, listed))


def talk(endpoint: Endpoint, conversation: Conversation) -> int:
    """Run until /exit or the end of input; the exit code."""
    interactive = sys.stdin.isatty()
    if interactive:
        typer.echo(f"{conversation.model} at {endpoint.url} · /help lists commands, Ctrl-D quits")
    code = 0
    while True:
        try:
            line = _read(interactive)
            if line is None:
                return code
            if line.strip() and not _handle(endpoint, conversation, line.strip()):
                return code
        except KeyboardInterrupt:
            if not interactive:
                raise
            typer.echo("\n(Ctrl-D or /exit quits)")
        except LlmlaunchError as error:
            from llmlaunch.cli.app import fail

            fail(error)
            code = 0 if interactive else 1


def _read(interactive: bool) -> str | None:
    if not interactive:
        return sys.stdin.readline() or None
    import readline  # noqa: F401  # gives input() its line editing

    try:
        return input("> ")
    except EOFError:
        typer.echo()
        return None


def _handle(endpoint: Endpoint, conversation: Conversation, line: str) -> bool:
    """Act on one line; False ends the loop."""
    order = parse(line)
    if isinstance(order, str):
        answer(endpoint, conversation, order)
        return True
    _obey(endpoint, conversation, order)
    return order.verb != "exit"


def _obey(endpoint: Endpoint, conversation: Conversation, order: ChatCommand) -> None:
    if order.verb == "help":
        typer.echo(HELP)
    elif order.verb == "reset":
        conversation.reset()
        typer.echo("(a new conversation)")
    elif order.verb == "save":
        conversation.save(order.argument)
        typer.echo(f"(saved to {order.argument})")
    elif order.verb == "load":
        conversation.load(order.argument)
        typer.echo(f"(loaded {len(conversation.messages)} messages)")
    elif order.verb in ("remove", "regen"):
        text = conversation.undo()
        if text is None:
            raise UsageError("nothing has been said yet")
        if order.verb == "regen":
            answer(endpoint, conversation, text)
        else:
            typer.echo("(forgotten)")


def answer(endpoint: Endpoint, conversation: Conversation, text: str) -> None:
    """Send ``text`` and print the answer as it comes. Ctrl-C keeps what has arrived.

    Raises RequestError and DeadlineError; the message is forgotten then, so that it can be sent again.
    """
    conversation.say(text)
    said, end = "", ""
    try:
        for part, end in _parts(endpoint.stream("/chat/completions", conversation.body())):  # noqa: B007
            said += part
            typer.echo(visible(part), nl=False)
            sys.stdout.flush()
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        typer.echo(" (stopped)", nl=False)
    except LlmlaunchError:
        conversation.undo()
        if said:
            typer.echo()
        raise
    typer.echo()
    if end == "length":
        typer.echo("(cut off: --max-tokens, or the model's context, is used up)", err=True)
    if said:
        conversation.answered(said)
    else:
        conversation.undo()
        raise RequestError("the answer was empty")


def _parts(events: Iterator[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """The pieces of text, each with the reason for the end if it is the last."""
    for event in events:
        for choice in event.get("choices") or ():
            yield (
                str((choice.get("delta") or {}).get("content") or ""),
                str(choice.get("finish_reason") or ""),
            )
