"""A gateway that starts while its controller hangs."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from tests.integration.gateway.fakes import FakeController, FakeWorker, GatewayProcess, ask, chat, echo
from tests.support.waiting import wait_until


def test_a_gateway_that_starts_while_the_controller_hangs_serves_at_once(tmp_path: Path) -> None:
    env = {"LLMLAUNCH_HOME": str(tmp_path), "LLMLAUNCH_DEPLOYMENT": "lab", "LLMLAUNCH_RUN": "run-1"}
    file = tmp_path / "state" / "lab" / "routes.json"
    file.parent.mkdir(parents=True)
    controller, worker = FakeController(), FakeWorker(echo)
    port = controller.port
    first = GatewayProcess(controller.url, "--processes", "2", env=env).until_up()
    try:
        controller.set(worker.replica("m"), expected=["m"])
        wait_until(lambda: file.exists() and worker.url in file.read_text())
    finally:
        first.stop()
        controller.close()
    with socket.create_server(("127.0.0.1", port)):  # takes connections, and never says a word
        second = GatewayProcess(controller.url, "--processes", "2", env=env).until_up()
        another = GatewayProcess(controller.url, env=env | {"LLMLAUNCH_RUN": "run-2"}).until_up()
        try:
            assert chat(second.port, "m").status == 200
            assert ask(second.port, "GET", "/health").status == 200
            assert chat(another.port, "m").status == 503, "another run's addresses may be a stranger's"
        finally:
            second.stop()
            another.stop()
            worker.close()
    assert json.loads(file.read_text())["run"] == "run-1"
