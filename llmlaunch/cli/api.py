"""``llmlaunch api``: the OpenAI-compatible endpoint, as a foreground process."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer


def api(
    host: str = typer.Option("127.0.0.1", help="Address to listen on; 0.0.0.0 for all interfaces."),
    port: int = typer.Option(8000, min=0, max=65535, help="Port to listen on."),
    controller_address: str = typer.Option(
        "http://127.0.0.1:21001", help="Controller whose route table to use."
    ),
    api_keys_file: Optional[Path] = typer.Option(  # noqa: UP045  # typer reads it at run time
        None,
        help="File of API keys, one per line: KEY or NAME: KEY, optionally followed by limits. Reread when it changes.",
    ),
    api_keys_env: Optional[str] = typer.Option(  # noqa: UP045
        None, metavar="VARIABLE", help="Environment variable with comma-separated API keys."
    ),
    max_body_bytes: int = typer.Option(
        32 << 20, min=1, help="Largest accepted request body; larger ones get 413."
    ),
    max_bodies_bytes: int = typer.Option(
        256 << 20,
        min=1,
        help="Memory for all request bodies together, at least one of the largest size; beyond it: 503.",
    ),
    cors_origin: list[str] = typer.Option(
        [],
        metavar="ORIGIN",
        help="Origin whose pages may call from a browser; '*' allows all. Repeatable.",
    ),
    trusted_proxy: list[str] = typer.Option(
        [],
        metavar="NETWORK",
        help="Address or network of a proxy whose X-Forwarded-For is trusted. Repeatable.",
    ),
    allowed_host: list[str] = typer.Option(
        [],
        metavar="HOST",
        help="Host name that clients may use although it listens on loopback without keys; '*' allows any. Repeatable.",
    ),
    tls_cert: Optional[Path] = typer.Option(  # noqa: UP045
        None, help="PEM file with the certificate chain: serves https. Reread when it changes."
    ),
    tls_key: Optional[Path] = typer.Option(None, help="PEM file with its private key."),  # noqa: UP045
    processes: int = typer.Option(
        1,
        min=1,
        max=64,
        help="Processes that share the port and the limits; one is enough until it uses a whole CPU.",
    ),
    stop_grace: float = typer.Option(
        10.0, min=0, help="Seconds that requests in flight get to finish when it shuts down."
    ),
    access_log: bool = typer.Option(
        False,
        "--access-log",
        help="Write one JSON line per request to stdout, without the text of prompts and answers.",
    ),
    ollama: bool = typer.Option(
        False,
        "--ollama",
        help="Answer Ollama's API too: /api/chat, /api/generate, /api/embed, /api/tags and so on.",
    ),
    log_level: str = typer.Option("info", help="debug, info, warning or error."),
) -> None:
    """Serve the OpenAI API for what the controller knows.

    The deployment's token is read from the environment variable LLMLAUNCH_TOKEN. Ends with 0 on SIGTERM and 130 on
    Ctrl-C, after requests in flight had --stop-grace to finish; a stream that is still open then gets an error event.
    """
    import os
    import sys

    from llmlaunch.common import variables
    from llmlaunch.common.addresses import url
    from llmlaunch.common.browser_guard import door
    from llmlaunch.gateway import server
    from llmlaunch.gateway.app import GatewayOptions
    from llmlaunch.gateway.client_address import networks
    from llmlaunch.gateway.http1.tls import certificate
    from llmlaunch.gateway.limits.keys import load_key_ring
    from llmlaunch.gateway.routing.controller_sync import controller_address as checked
    from llmlaunch.gateway.routing.saved_table import of_deployment
    from llmlaunch.http_server import bind, configure_logging

    configure_logging(log_level)
    checked(controller_address)
    keys = load_key_ring(api_keys_file, api_keys_env, processes)
    tls = certificate(tls_cert, tls_key)
    sock = bind(host, port)
    where, bound, *_ = sock.getsockname()
    service = server.GatewayService(
        controller_url=controller_address,
        token=os.environ.get(variables.TOKEN, ""),
        worker_keys=os.environ.get(variables.WORKER_KEYS, ""),
        options=GatewayOptions(
            max_body_bytes=max_body_bytes,
            max_bodies_bytes=max_bodies_bytes,
            trusted_proxies=networks(trusted_proxy, "--trusted-proxy"),
            door=door(
                where,
                names=[host, *allowed_host],
                origins=cors_origin,
                keys=keys is not None,
                remedy="To be called by another name, list it under allowed_hosts of api (--allowed-host), or use API keys.",
            ),
            access_log=sys.stdout.fileno() if access_log else None,
            ollama=ollama,
        ),
        keys=keys,
        tls=tls,
        grace_s=stop_grace,
        processes=processes,
        saved_table=of_deployment(os.environ, controller_address),
    )
    address = url(host, bound) if tls is None else url(host, bound).replace("http:", "https:", 1)
    # Configuring the log has made printing safe: a full disk costs this line, and not the service.
    code = server.run(service, sock, on_started=lambda: typer.echo(f"listening on {address}", err=True))
    raise typer.Exit(code)
