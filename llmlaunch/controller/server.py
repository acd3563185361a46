"""The controller's process: its settings from the environment, its server, its end."""

from __future__ import annotations

import logging
import os
import socket

from llmlaunch import http_server
from llmlaunch.common import variables
from llmlaunch.common.addresses import url
from llmlaunch.common.browser_guard import door
from llmlaunch.common.dispatch_methods import DispatchMethod
from llmlaunch.controller.app import Controller

GRACE_S = 1.0
"""Seconds for requests in flight at the end: only a worker that is being probed can take so long."""
log = logging.getLogger(__name__)


def run(sock: socket.socket, dispatch: DispatchMethod, *, open_registration: bool, name: str = "") -> int:
    """Serve a controller on the listening ``sock``, which is also called ``name``, until a signal ends it; return the process's exit code.

    The token is the value of the environment variable LLMLAUNCH_TOKEN; unset or empty means that there is none.
    """
    token = os.environ.get(variables.TOKEN, "")
    controller = Controller(
        dispatch,
        token=token,
        open_registration=open_registration,
        supervised=variables.DEPLOYMENT in os.environ,
    )
    host, port, *_ = sock.getsockname()
    if open_registration:
        who = "workers on any machine may register"
    elif token:
        who = "workers need the token to register"
    else:
        who = f"no {variables.TOKEN}: only workers on this machine may register"

    def started() -> None:
        log.info("controller on %s, dispatch %s; %s", url(host, port), dispatch, who)

    # Plain asyncio: some hundred small requests a second at most, and a tenth less memory than with uvloop.
    return http_server.run_app(
        controller.app(),
        sock,
        on_started=started,
        on_stopping=controller.stop,
        grace_s=GRACE_S,
        loop="asyncio",
        door=door(host, names=[name]),
    )
