"""A client and the supervisors it may meet: of another version, of another user, or none."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from llmlaunch import __version__, other_deployments, paths
from llmlaunch.control import supervisor_process
from llmlaunch.control.client import ControlClient
from llmlaunch.control.discovery import manifest_of
from llmlaunch.errors import ControlError, NotRunningError
from llmlaunch.planning.codec import spec_to_json
from llmlaunch.planning.types import Plan
from tests.support.waiting import wait_until
from tests.unit.supervision.histories import spec

Answers = dict[str, tuple[int, Any]]
UNKNOWN_FIELD = (400, {"error": {"code": "plan", "message": "plan has unknown private_env", "hint": "…"}})
NO_ROUTE = (404, {"error": {"code": "no_route", "message": "GET /about does not exist", "hint": ""}})
STATUS = {
    "deployment": "lab", "supervisor": {"pid": 7, "started_at": 1.0}, "api": {"url": ""}, "components": [],
    "manifest": "/srv/deploy.yaml",
}  # fmt: skip


def about(version: str) -> tuple[int, Any]:
    return 200, {"deployment": "lab", "manifest": "/srv/deploy.yaml", "version": version}


@contextmanager
def supervisor(answers: Answers) -> Iterator[ControlClient]:
    """Something that answers at the socket of the deployment "lab"."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answers[self.path]
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

        def get_request(self) -> tuple[Any, Any]:
            return self.socket.accept()[0], ("local", 0)

    where = paths.DeploymentPaths("lab")
    paths.private_dir(where.run)
    with Server(str(where.socket), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield ControlClient.connect("lab")
        finally:
            server.shutdown()


OTHER_SPEC = (200, {"processes": [spec_to_json(spec("a")) | {"colour": "red"}], "phases": {}})


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ((200, about("0.0.1")[1]), f"is version 0.0.1, this is {__version__}"),
        (NO_ROUTE, f"is an older version, this is {__version__}"),
        (about(__version__), f"is a different build of version {__version__}"),
    ],
)
def test_a_supervisor_of_another_version_is_told_as_one(
    home: Path, version: tuple[int, Any], words: str
) -> None:
    answers = {"/about": version, "/status": (200, STATUS), "/apply": UNKNOWN_FIELD, "/specs": OTHER_SPEC}
    with supervisor(answers) as client:
        for order, detail in (
            (lambda: client.apply(Plan("lab", ())), "plan has unknown private_env"),
            (client.deployed, "process has unknown colour"),
        ):
            with pytest.raises(ControlError) as caught:
                order()
            assert caught.value.code == "version"
            assert caught.value.message == (
                f"the running supervisor of 'lab' {words}; the two are not compatible ({detail})"
            )
            assert caught.value.hint == "run `llmlaunch down --name lab`, then `llmlaunch up` again"
        assert other_deployments.running_beside("other") == {}, "it keeps no other deployment from its start"
        assert manifest_of("lab") == "/srv/deploy.yaml"


def test_what_another_user_listens_on_is_not_believed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with supervisor({"/about": about("1")}):
        monkeypatch.setattr("llmlaunch.common.files.trusted", lambda uid: False)
        with pytest.raises(
            supervisor_process.ForeignError, match=r"deployment 'lab' belongs to user '.*' \(uid \d+\)"
        ):
            ControlClient.connect("lab")
        assert manifest_of("lab") is None


def test_nothing_runs(home: Path) -> None:
    with pytest.raises(NotRunningError) as caught:
        ControlClient.connect("lab")
    assert caught.value.message == "deployment 'lab' is not running"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_another_users_deployment_is_said(home: Path) -> None:
    # What tells a supervisor is its command line.
    words = ["python", "-c", "sleep 60; :", supervisor_process.MODULE, "--name", "of-nobody"]
    with subprocess.Popen(words, executable="/bin/sh", user=65534, start_new_session=True) as process:
        try:
            wait_until(lambda: ("of-nobody", 65534) in supervisor_process.foreign_deployments())
            assert ("of-nobody", 65534) not in supervisor_process.foreign_deployments("lab")
            with pytest.raises(NotRunningError) as caught:
                ControlClient.connect("of-nobody")
            assert caught.value.message.startswith("deployment 'of-nobody' belongs to ")
            assert "(uid 65534)" in caught.value.message
            assert caught.value.exit_code == 1
        finally:
            os.killpg(process.pid, 9)


def test_a_user_without_a_name(home: Path) -> None:
    assert paths.describe_user(987654) == "unnamed user (uid 987654)"
