"""``llmlaunch chat``: talk to a model in the terminal, or through a pipe."""

from __future__ import annotations

import typer

from llmlaunch.cli.deploy.select import FILE, NAME, complete_model


def chat(
    model: str = typer.Argument(
        help="A name that the deployment serves.", metavar="MODEL", autocompletion=complete_model
    ),
    system: str | None = typer.Option(None, "--system", help="System message to start with.", metavar="TEXT"),
    temperature: float | None = typer.Option(None, "--temperature", min=0.0, max=2.0, metavar="T"),
    max_tokens: int = typer.Option(
        1024, "--max-tokens", min=1, metavar="N", help="Longest answer, in tokens."
    ),
    file: str | None = FILE,
    name: str | None = NAME,
    api_base: str | None = typer.Option(None, "--api-base", help="Another endpoint.", metavar="URL"),
) -> None:
    """Talk to a model in the terminal.

    One line is one message, and the answer streams. /help lists the commands. Ctrl-C stops an
    answer, Ctrl-D quits. From a pipe each line is a message; the exit code is 1 if any had no answer.
    """
    from llmlaunch.cli.talk.conversation import Conversation
    from llmlaunch.cli.talk.endpoint import find
    from llmlaunch.cli.talk.repl import check_model, talk

    settings = {"temperature": temperature, "max_tokens": max_tokens}
    endpoint = find(file, name, api_base)
    check_model(endpoint, model)
    conversation = Conversation(model, system, {k: v for k, v in settings.items() if v is not None})
    raise typer.Exit(talk(endpoint, conversation))
