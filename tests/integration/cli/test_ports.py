"""Ports and GPUs that are free to choose: nobody else's, also when others choose at the same moment or take one later."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cli.support import NO_PATIENCE, Fake, ask, piped, write
from tests.support.deployment import Cli
from tests.support.nvml import MockNvml
from tests.support.waiting import wait_until

GPUS = """\
sys driver=580.95.05 cuda=13000 procdir={procdir}
gpu name="NVIDIA L4" uuid=GPU-a total=24000 reserved=0
gpu name="NVIDIA L4" uuid=GPU-b total=24000 reserved=0
"""
CHOOSE: dict[str, Any] = {"controller": {}, "api": {}}


class Free(Fake):
    """A model whose port is free to choose."""

    def entry(self) -> dict[str, Any]:
        found = super().entry()
        del found["port"]
        return found


def bind(port: int) -> socket.socket | None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen()
    except OSError:
        sock.close()
        return None
    return sock


@contextlib.contextmanager
def in_place_of(cli: Cli, name: str) -> Iterator[int]:
    """Kill ``name`` and listen on its port, before it is back there itself; the port."""
    port = int(cli.component(name)["address"].rpartition(":")[2])
    sock = None
    while sock is None:
        component = wait_until(
            lambda: (c := cli.component(name))["phase"] == "ready" and c, 20, f"{name} is ready"
        )
        os.kill(component["pid"], signal.SIGKILL)
        with contextlib.suppress(AssertionError):
            sock = wait_until(lambda: bind(port), 0.1, every_s=0.0)
    with sock:
        yield port


def test_two_deployments_started_at_once_get_different_ports(cli: Cli) -> None:
    write(cli, Free("one", replicas=2), file="a.yaml", name="a", **CHOOSE)
    write(cli, Free("two", replicas=2), file="b.yaml", name="b", **CHOOSE)
    with piped(cli, "up", "-d", "a.yaml") as first, piped(cli, "up", "-d", "b.yaml") as second:
        assert (first.end(), second.end()) == (0, 0), first.text + second.text
    components = [c for name in "ab" for c in cli.status("--name", name)["components"]]
    assert {(c["phase"], c["incarnation"]) for c in components} == {("ready", 1)}
    assert len({c["address"] for c in components}) == len(components) == 8
    assert "api listens on port" in first.text + second.text, (
        "at most one of them has the default, and that is told"
    )
    cli.ok("down", "--name", "a")
    cli.ok("down", "--name", "b")


def test_two_deployments_started_at_once_share_out_the_gpus(
    cli: Cli, mock_nvml: MockNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a replica claims and has not loaded is on no GPU yet: only its supervisor knows."""
    for key, value in mock_nvml.env.items():
        monkeypatch.setenv(key, value)
    mock_nvml.write(GPUS.format(procdir=mock_nvml.procdir()))
    for name in "abc":
        write(cli, Free("m", more={"vram": "15GiB"}), file=f"{name}.yaml", name=name, **CHOOSE)
    with piped(cli, "up", "-d", "a.yaml") as first, piped(cli, "up", "-d", "b.yaml") as second:
        assert (first.end(), second.end()) == (0, 0), first.text + second.text
    places = [c["gpus"] for name in "ab" for c in cli.status("--name", name)["components"] if c["gpus"]]
    assert sorted(places) == [["GPU-a"], ["GPU-b"]]
    done = cli.run("up", "-d", "c.yaml")
    assert done.returncode == 1
    assert "a/m-1, which has yet to load 15.0 GiB" in done.stderr
    cli.ok("down", "--name", "a")
    cli.ok("down", "--name", "b")


def test_a_taken_port_is_called_by_the_component_that_holds_it(cli: Cli) -> None:
    tiny = Fake("tiny")
    write(cli, tiny, file="a.yaml", name="a", **CHOOSE)
    cli.ok("up", "-d", "a.yaml")
    write(cli, Fake("other", port=tiny.port), file="b.yaml", name="b", **CHOOSE)
    done = cli.run("up", "-d", "b.yaml")
    assert done.returncode == 1
    assert f"other-1 requests port {tiny.port} on 127.0.0.1, which tiny-1 of deployment a (pid" in done.stderr
    cli.ok("down", "--name", "a")


def test_what_is_shut_out_of_its_port_moves_to_another(cli: Cli) -> None:
    write(cli, Free("tiny"))
    with piped(cli, "up") as up:
        up.until("lab is ready")
        with in_place_of(cli, "tiny-1") as port:
            up.until(f"tiny-1: port {port} has been taken in the meantime; moving to port ")
            moved = wait_until(lambda: (c := cli.component("tiny-1"))["phase"] == "ready" and c, 20)
            assert not moved["address"].endswith(f":{port}")
            assert ask(moved["address"] + "/v1/models")
            wait_until(lambda: cli.run("test", "tiny").returncode == 0, 20, "an answer from the new place")
        up.signal(signal.SIGINT)
        assert up.end() == 130
    assert cli.processes() == []


def test_the_next_up_moves_what_was_shut_out_in_the_background(cli: Cli) -> None:
    cli.env |= NO_PATIENCE
    write(cli, Free("tiny"))
    cli.ok("up", "-d")
    with in_place_of(cli, "tiny-1") as port:
        failed = wait_until(lambda: (c := cli.component("tiny-1"))["phase"] == "failed" and c, 20)
        assert failed["why"] == "port"
        assert f"port {port} on 127.0.0.1 is taken by" in failed["cause"]
        cli.ok("up", "-d")
        assert cli.component("tiny-1")["phase"] == "ready"
        assert not cli.component("tiny-1")["address"].endswith(f":{port}")
    cli.ok("down")


def test_a_port_that_was_asked_for_is_not_exchanged(cli: Cli) -> None:
    cli.env |= NO_PATIENCE
    tiny = Fake("tiny")
    write(cli, tiny)
    with piped(cli, "up") as up:
        up.until("lab is ready")
        with in_place_of(cli, "tiny-1") as port:
            assert port == tiny.port
            up.until("tiny-1: failed: ")
            up.until("next try ")
            assert f"port {port} on 127.0.0.1 is taken by" in up.text
            assert f"(pid {os.getpid()})" in up.text
            assert "moves" not in up.text
            done = cli.run("up", "-d")
            assert done.returncode == 1
            assert f"port {port} on 127.0.0.1" in done.stderr
        back = wait_until(
            lambda: (c := cli.component("tiny-1"))["phase"] == "ready" and c, 20, "the port is free"
        )
        assert (back["last"]["why"], back["last"]["exit_code"]) == ("port", None)
        assert f"ago: port {port} on 127.0.0.1 is taken by" in cli.ok("status")
        up.signal(signal.SIGINT)
        assert up.end() == 130
    assert cli.processes() == []
