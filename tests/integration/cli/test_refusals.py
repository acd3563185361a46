"""What does not start, and says why; and deployments side by side."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.support import FAILS, NO_PATIENCE, Fake, piped, write
from tests.support.deployment import Cli
from tests.support.ports import free_port
from tests.support.waiting import wait_until

RECORDED = Path(__file__).parents[2] / "data/engine_logs/vllm-bad-weights.log"


def test_a_wrong_manifest_starts_nothing(cli: Cli) -> None:
    (cli.cwd / "deploy.yaml").write_text("models:\n  - model: x\n    replicsa: 2\n    port: 99999\n")
    done = cli.run("up", "-d")
    assert done.returncode == 2
    assert "deploy.yaml:3:5" in done.stderr
    assert "deploy.yaml:4:11" in done.stderr
    assert "'replicas'" in done.stderr
    assert "Traceback" not in done.stderr
    assert cli.processes() == []


def test_no_manifest(cli: Cli) -> None:
    done = cli.run("up")
    assert done.returncode == 2
    assert "deploy.yaml" in done.stderr


def test_a_model_that_does_not_exist_starts_nothing(cli: Cli) -> None:
    (cli.cwd / "deploy.yaml").write_text("models: [./no-such-model]\n")
    done = cli.run("up", "-d")
    assert done.returncode == 1
    assert "no-such-model" in done.stderr
    assert cli.processes() == []


def test_a_port_that_is_taken_is_named_with_its_holder(cli: Cli) -> None:
    fake = Fake("tiny")
    write(cli, fake)
    with socket.create_server(("127.0.0.1", fake.port)):
        done = cli.run("up", "-d")
    assert done.returncode == 1
    assert str(fake.port) in done.stderr
    assert "pid" in done.stderr
    assert cli.processes() == []


def test_a_failure_in_the_background_is_told_with_its_last_lines(cli: Cli) -> None:
    cli.env |= NO_PATIENCE
    write(cli, Fake("broken", [*FAILS, "--print", str(RECORDED)]), Fake("tiny"))
    done = cli.run("up", "-d")
    assert done.returncode == 1
    error = done.stderr
    why = "exited with code 1 while starting: RuntimeError: start (0) + length (1600) exceeds dimension size (1536)."
    assert "broken-1: failed" in error
    assert why in error
    assert "  | RuntimeError: this engine was told to fail" in error
    assert "llmlaunch down --name lab" in error
    broken = cli.component("broken-1")
    assert (broken["phase"], why in broken["cause"]) == ("failed", True)
    assert why in " ".join(cli.ok("status").split())
    wait_until(lambda: cli.component("tiny-1")["phase"] == "ready", 20, "the other one goes on")
    cli.ok("down")


def test_ways_not_to_wait_for_a_slow_start(cli: Cli) -> None:
    write(cli, Fake("slow", ["--ready-after", "60", "--progress"]))
    with piped(cli, "up", "-d") as up:
        up.until("slow-1: starting")
        up.signal(signal.SIGINT)
        assert up.end() == 130
        assert "goes on in the background" in up.text
    assert cli.component("slow-1")["phase"] == "starting"

    done = cli.run("up", "-d", "--timeout", "0.5")
    assert done.returncode == 4
    assert "slow-1: starting: loading" in done.stderr
    assert "llmlaunch down --name lab" in done.stderr

    assert "in the background" in cli.ok("up", "-d", "--no-wait")
    assert cli.run("up", "--no-wait").returncode == 2

    done = cli.run("restart", "slow-1", "--timeout", "0.5")
    assert done.returncode == 4
    assert "slow-1" in done.stderr
    cli.ok("down", "--force")
    assert cli.processes() == []


def test_up_waits_for_the_end_of_what_is_going_down(cli: Cli) -> None:
    write(cli, Fake("tiny", ["--ignore-term"], more={"stop_grace": 2}))
    cli.ok("up", "-d")
    with piped(cli, "down") as down:
        down.until("tiny-1: stopping")
        out = cli.ok("up", "-d")
        assert "waiting for lab to finish shutting down" in out
        assert down.end() == 0
    assert cli.component("tiny-1")["phase"] == "ready"
    cli.ok("down", "--force")


def test_two_deployments_side_by_side(cli: Cli) -> None:
    write(cli, Fake("one"), file="a.yaml", name="a")
    write(cli, Fake("two"), file="b.yaml", name="b")
    with piped(cli, "up", "-d", "a.yaml") as first:
        cli.ok("up", "-d", "b.yaml")
        assert first.end() == 0
    done = cli.run("status")
    assert done.returncode == 2
    assert "a, b" in done.stderr
    assert cli.status("-f", "b.yaml")["deployment"] == "b"
    cli.ok("down", "--name", "a")
    assert cli.status()["deployment"] == "b"
    cli.ok("down")
    assert cli.processes() == []


@pytest.mark.parametrize("ports", ["given", "free"])
def test_two_ups_at_once_start_one(cli: Cli, ports: str) -> None:
    fake = Fake("tiny")
    sections: dict[str, Any] = {} if ports == "given" else {"controller": {}, "api": {}}
    write(cli, fake, **sections)
    with piped(cli, "up", "-d") as first, piped(cli, "up", "-d") as second:
        assert (first.end(), second.end()) == (0, 0), first.text + second.text
    # Nobody was started twice, and nobody was moved to another port.
    assert [c["incarnation"] for c in cli.status()["components"]] == [1, 1, 1]
    cli.ok("down")
    assert cli.processes() == []


def test_keys_are_kept_and_used(cli: Cli) -> None:
    keys = cli.cwd / "keys.txt"
    keys.write_text(
        "# for tests\nfirst: sk-secret-one models=nothing\nsk-secret-two concurrency=9 # for tests\nlast: sk-secret-free\n"
    )
    write(cli, Fake("tiny"), api={"port": free_port(), "api_keys_file": "keys.txt"})
    out = cli.ok("up", "-d")
    assert '-H "Authorization: Bearer $KEY"' in out
    assert str(keys) in out
    assert "word0" in cli.ok("test", "tiny")
    cli.env["LLMLAUNCH_API_KEY"] = "sk-wrong"
    done = cli.run("test", "tiny")
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "LLMLAUNCH_API_KEY" in done.stderr
    shown = json.dumps(cli.status()) + cli.ok("logs") + out
    assert "sk-" not in shown
    assert not any("sk-secret" in " ".join(p.cmdline()) for p in cli.processes())
    cli.ok("down")


@pytest.mark.parametrize("words", [["restart", "x"], ["test", "x"], ["chat", "x"], ["status"]])
def test_without_a_deployment(cli: Cli, words: list[str]) -> None:
    done = cli.run(*words)
    assert done.returncode == 3
    assert "no deployment is running" in done.stderr
