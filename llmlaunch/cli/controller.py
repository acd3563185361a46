"""``llmlaunch controller``: who serves what, as an ordinary foreground process."""

from __future__ import annotations

from enum import StrEnum

import typer

from llmlaunch.common.dispatch_methods import DEFAULT, DispatchMethod


class LogLevel(StrEnum):
    """How much the controller prints to stderr."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def controller(
    host: str = typer.Option("127.0.0.1", help="Address to listen on."),
    port: int = typer.Option(21001, min=1, max=65535, help="Port to listen on."),
    dispatch_method: DispatchMethod = typer.Option(
        DEFAULT, help="How gateways choose among the replicas of a model."
    ),
    open_registration: bool = typer.Option(
        False, "--open-registration", help="Let workers of any machine register without a token."
    ),
    log_level: LogLevel = typer.Option(LogLevel.info.value, help="Log level on stderr."),
) -> None:
    """Run a controller: workers register with it, gateways ask it for routes.

    The environment variable LLMLAUNCH_TOKEN holds the token that workers and gateways must show; without one, only
    processes on this machine may register.
    """
    from llmlaunch import http_server

    http_server.configure_logging(log_level.value)
    sock = http_server.bind(host, port)  # before the imports below, so that a taken port is reported at once

    from llmlaunch.controller.server import run

    raise typer.Exit(run(sock, dispatch_method, open_registration=open_registration, name=host))
