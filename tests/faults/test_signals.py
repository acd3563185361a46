"""Signals and terminals: what ends a deployment, and what does not."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.integration.cli.support import Fake, Running, gone, piped, write
from tests.support import deployment
from tests.support.deployment import Cli
from tests.support.waiting import wait_until


@pytest.fixture
def cli() -> Iterator[Cli]:
    with deployment.cli() as box:
        yield box


def supervisor_log(cli: Cli) -> str:
    return (Path(cli.home) / "state" / "lab" / "logs" / "supervisor.log").read_text()


def test_a_deployment_that_was_started_with_nohup_outlives_its_terminal(cli: Cli) -> None:
    write(cli, Fake("tiny"))
    read_end, write_end = os.pipe()
    up = cli.start(
        "up", stdout=write_end, stderr=write_end, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )  # fmt: skip
    os.close(write_end)
    running = Running(up, read_end)
    try:
        running.until("lab is ready")
        up.send_signal(signal.SIGHUP)
        assert cli.component("tiny-1")["phase"] == "ready"
        assert up.poll() is None
        assert "stopping" not in running.text
        up.send_signal(signal.SIGTERM)
        assert running.end() == 0
    finally:
        up.kill()
        up.wait()
        running.close()


def _noted(cli: Cli, name: str) -> bool:
    return f"ignoring {name}" in supervisor_log(cli)


def test_a_supervisor_notes_signals_that_mean_nothing_and_goes_on(cli: Cli) -> None:
    write(cli, Fake("tiny"))
    cli.ok("up", "-d")
    pid = cli.status()["supervisor"]["pid"]
    api = next(c["pid"] for c in cli.status()["components"] if c["component"] == "api")
    for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGALRM, signal.SIGXCPU, signal.SIGRTMIN):
        os.kill(pid, number)
        name = signal.Signals(number).name
        wait_until(partial(_noted, cli, name), 5, name)
    os.kill(api, signal.SIGXCPU)
    wait_until(lambda: "ignoring SIGXCPU" in cli.ok("logs", "api"), 5)
    assert {c["restarts"] for c in cli.status()["components"]} == {0}
    assert cli.ok("test", "tiny")


def test_a_stream_ends_well_when_the_terminal_is_killed(cli: Cli) -> None:
    write(cli, Fake("tiny", ["--chunks", "20", "--chunk-delay", "0.1"]))
    with piped(cli, "up") as up:
        up.until("stop      Ctrl-C")
        url = cli.status()["api"]["url"]
        body = {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        request = urllib.request.Request(
            f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.readline().startswith(b"data:")
            up.signal(signal.SIGKILL)
            up.end()
            rest = answer.read()
        assert rest.rstrip().endswith(b"data: [DONE]")
        assert b"word19" in rest
        wait_until(gone(cli), 10, "everything gone")
    assert "by force" not in supervisor_log(cli)
