"""Ports: a real bind decides, and the holder has a name."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from llmlaunch.hardware import ports
from llmlaunch.supervision.processes import spawn
from tests.support.ports import free_port


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as value:
        yield value


def listen(stack: ExitStack, host: str, port: int, *, backlog: bool = True) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = stack.enter_context(closing(socket.socket(family)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    if backlog:
        sock.listen()
    return sock


def holder(host: str, port: int) -> str:
    return next((o.holder for o in ports.occupied_ports([host]) if o.port == port), "")


def test_free_port() -> None:
    port = free_port()
    assert ports.can_bind("127.0.0.1", port)
    assert ports.can_bind("localhost", port)
    assert not holder("127.0.0.1", port)


@pytest.mark.parametrize("asked", ["127.0.0.1", "0.0.0.0", "::", "localhost"])
def test_a_listener_takes_its_port_from_overlapping_hosts(stack: ExitStack, asked: str) -> None:
    port = free_port()
    listen(stack, "127.0.0.1", port)
    assert not ports.can_bind(asked, port)
    assert f"(pid {os.getpid()})" in holder(asked, port)
    assert ports.holder_of(asked, port) == holder(asked, port)


def test_a_component_of_a_deployment_is_called_by_its_name() -> None:
    port = free_port()
    program = f"import socket; s = socket.create_server(('127.0.0.1', {port})); print(flush=True); input()"
    marks = {"LLMLAUNCH_DEPLOYMENT": "lab", "LLMLAUNCH_COMPONENT": "tiny-1"}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **marks},
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            (row,) = [o for o in ports.occupied_ports(["127.0.0.1"]) if o.port == port]
            assert (row.holder, row.owner) == (f"tiny-1 of deployment lab (pid {process.pid})", "lab/tiny-1")
            assert ports.holder_of("127.0.0.1", port) == row.holder
        finally:
            process.kill()


def test_other_loopback_addresses_stay_free(stack: ExitStack) -> None:
    port = free_port()
    listen(stack, "127.0.0.1", port)
    assert ports.can_bind("127.0.0.2", port)
    assert not holder("127.0.0.2", port)


@pytest.mark.parametrize("asked", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_wildcard_listener_takes_every_address(stack: ExitStack, asked: str) -> None:
    port = free_port()
    listen(stack, "0.0.0.0", port)
    assert not ports.can_bind(asked, port)
    assert holder(asked, port)


def test_an_outgoing_connection_takes_its_local_port(stack: ExitStack) -> None:
    server = listen(stack, "127.0.0.1", free_port())
    client = stack.enter_context(closing(socket.create_connection(server.getsockname())))
    accepted, _ = server.accept()
    stack.enter_context(closing(accepted))
    port = client.getsockname()[1]
    assert not ports.can_bind("127.0.0.1", port)
    assert f"(pid {os.getpid()})" in holder("127.0.0.1", port)


def test_what_a_closed_server_left_in_time_wait_does_not_count(stack: ExitStack) -> None:
    server = listen(stack, "127.0.0.1", free_port())
    port = server.getsockname()[1]
    client = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port))))
    accepted, _ = server.accept()
    accepted.close()  # the side that closes first keeps TIME_WAIT
    assert client.recv(1) == b""
    client.close()
    server.close()
    with socket.socket() as strict, pytest.raises(OSError):
        strict.bind(("127.0.0.1", port))
    assert ports.can_bind("127.0.0.1", port)
    assert not holder("127.0.0.1", port)


def test_a_socket_that_is_bound_but_does_not_listen_yet_counts(stack: ExitStack) -> None:
    port = free_port()
    listen(stack, "127.0.0.1", port, backlog=False)
    assert not ports.can_bind("127.0.0.1", port)


def test_foreign_hosts() -> None:
    assert not ports.can_bind("192.0.2.1", free_port())
    assert not ports.can_bind("no-such-host.invalid", free_port())
    assert ports.occupied_ports(["192.0.2.1", "gpu-box-7.example"]) == ()


def test_local_addresses() -> None:
    local = ports.local_addresses()
    assert {"127.0.0.1", "localhost", "0.0.0.0", "::", socket.gethostname()} <= local
    assert not any("%" in name for name in local)


def test_every_host_gets_its_own_row(stack: ExitStack) -> None:
    port = free_port()
    listen(stack, "127.0.0.1", port)
    rows = [o.host for o in ports.occupied_ports(["127.0.0.1", "0.0.0.0", "127.0.0.9"]) if o.port == port]
    assert rows == ["0.0.0.0", "127.0.0.1"]


def test_who_cannot_be_found_is_not_blamed_on_anybody(stack: ExitStack) -> None:
    port = free_port()
    listen(stack, "127.0.0.1", port, backlog=False)
    assert ports.holder_of("127.0.0.1", port) == ports.UNNAMED_HOLDER


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "127.0.0.9"])
def test_a_host_that_can_be_listened_on(host: str) -> None:
    assert ports.bind_problem(host) == ""


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a..b", "x" * 80])
def test_a_name_without_an_address_is_no_taken_port(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(-2, "Name or service not known")

    if ".." not in host and len(host) < 64:
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert ports.bind_problem(host) == "has no address: neither /etc/hosts nor DNS knows this name"
    assert not ports.can_bind(host, 80)
    assert spawn.wait_for_port(host, 80).startswith(f"host {host} has no address")


def test_a_name_that_leads_elsewhere_is_no_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    row = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [row])
    assert ports.bind_problem("gpu-box") == "is 192.0.2.7, which is not an address of this machine"
    assert ports.bind_problem("192.0.2.7") == "is not an address of this machine"
    assert spawn.wait_for_port("gpu-box", free_port()) == (
        "host gpu-box is 192.0.2.7, which is not an address of this machine"
    )


def test_a_name_is_looked_up_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor lives for months: what could not be found may be found now."""
    found: list[object] = []

    def look(*_: object, **__: object) -> list[object]:
        if not found:
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return found

    monkeypatch.setattr(socket, "getaddrinfo", look)
    assert not ports.can_bind("gpu-box", free_port())
    found.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)))
    assert ports.can_bind("gpu-box", free_port())
