"""Clients that are slow on purpose, and thousands of them: they cost a connection each, for a time, and nobody else's."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.gateway.fakes import (
    HOST,
    Bench,
    Client,
    FakeController,
    FakeWorker,
    GatewayProcess,
    Seen,
    Talk,
    ask,
    chat,
    metric,
)
from tests.support.ports import free_port
from tests.support.waiting import wait_until

IMPATIENT = """
import sys
from llmlaunch.gateway import server
from llmlaunch.gateway.http1 import client_connection
from llmlaunch.http_server import bind, configure_logging
client_connection.HEAD_TIMEOUT_S = client_connection.BODY_TIMEOUT_S = client_connection.IDLE_TIMEOUT_S = 1.0
client_connection.STALLED_TIMEOUT_S = 1.5
client_connection.LINGER_S = 0.5
configure_logging("info")
sys.exit(server.run(server.GatewayService({controller!r}), bind("127.0.0.1", {port})))
"""
POST = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture(scope="module")
def impatient() -> Iterator[tuple[int, FakeController]]:
    """A gateway whose patience is a second."""
    port, controller = free_port(), FakeController()
    process = subprocess.Popen(
        [sys.executable, "-c", IMPATIENT.format(controller=controller.url, port=port)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: answers(port), 20)
        yield port, controller
        process.terminate()
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in log
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        controller.close()


def answers(port: int) -> bool:
    try:
        return ask(port, "GET", "/health").status == 200
    except OSError:
        return False


def connections(port: int) -> float:
    """Other than the one that asks."""
    return metric(ask(port, "GET", "/metrics").body.decode(), "connections") - 1


def dripping(port: int, first: bytes, drop: bytes) -> Client:
    """A client that goes on sending ``drop`` until it is told to go."""
    client = Client(port)
    client.send(first)

    def drip() -> None:
        with contextlib.suppress(OSError):
            while not gone.wait(0.05):
                client.send(drop)

    gone = threading.Event()
    threading.Thread(target=drip, daemon=True).start()
    return client


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"GET /health HTT", b""),
        (b"GET /health HTTP/1.1\r\nx: ", b"a"),
        (b"GET /", b"a"),
        (POST + b"content-length: 100\r\n\r\nsome", b""),
        (POST + b"transfer-encoding: chunked\r\n\r\n1;", b"a"),
        (POST + b"transfer-encoding: chunked\r\n\r\n0\r\nx: ", b"a"),
    ],
    ids=[
        "half a line",
        "an endless field",
        "an endless path",
        "half a body",
        "an endless extension",
        "an endless trailer",
    ],
)
def test_what_does_not_arrive_in_time_is_408(
    impatient: tuple[int, FakeController], first: bytes, drop: bytes
) -> None:
    port, _ = impatient
    with dripping(port, first, drop) as client:
        answer = client.answer()
        assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        with contextlib.suppress(ConnectionResetError):  # as it goes on to send
            assert client.closed()
    wait_until(lambda: connections(port) == 0)


@pytest.mark.parametrize("sent", [b"", b"\r\n"], ids=["nothing", "empty lines"])
def test_who_says_nothing_is_let_go(impatient: tuple[int, FakeController], sent: bytes) -> None:
    port, _ = impatient
    with dripping(port, sent, sent) as client, contextlib.suppress(ConnectionResetError):
        assert client.closed()
    wait_until(lambda: connections(port) == 0)


def small_window(port: int) -> Client:
    client = Client(port)
    client.sock.close()
    client.sock = socket.socket()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sock.settimeout(10)
    client.sock.connect((HOST, port))
    return client


def test_a_reader_that_stands_still_frees_its_replica(impatient: tuple[int, FakeController]) -> None:
    port, controller = impatient

    def endless(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        with contextlib.suppress(OSError):
            while True:
                talk.event({"choices": [], "pad": "x" * 10_000})
        talk.worker.left.append(1)

    worker = FakeWorker(endless)
    try:
        controller.set(worker.replica("m"))
        wait_until(lambda: ask(port, "GET", "/v1/models/m").status == 200)
        with small_window(port) as client:
            client.post({"model": "m", "stream": True})
            wait_until(lambda: worker.left, what="the replica is let go")
        wait_until(lambda: connections(port) == 0)
    finally:
        worker.close()


@pytest.mark.parametrize("ending", ["", "connection: close\r\n"], ids=["idle", "closing"])
def test_answers_that_nobody_takes_are_not_kept_for_ever(
    impatient: tuple[int, FakeController], ending: str
) -> None:
    """Fewer bytes than would count as a stall, more than the kernel takes: closing would wait for them for ever."""
    port, controller = impatient
    size = 200_000
    worker = FakeWorker(lambda talk, seen: talk.reply({"pad": "x" * size}))
    try:
        controller.set(worker.replica("m"))
        wait_until(lambda: ask(port, "GET", "/v1/models/m").status == 200)
        clients = [small_window(port) for _ in range(20)]
        for number, client in enumerate(clients):
            # The kernel takes some MiB for each: from one to the next a little more is asked for.
            for _ in range(number):
                client.post({"model": "m"})
            client.post({"model": "m"}, extra=ending)
        wait_until(lambda: connections(port) == 0, 20)
        for client in clients:
            client.sock.close()
    finally:
        worker.close()


@contextlib.contextmanager
def limited(soft: int) -> Iterator[None]:
    """What is started in here may open that many files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_five_thousand_connections_at_once() -> None:
    """The gateway raises its own limit of open files, whatever it was started with."""
    many = 5000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < many + 200:
        pytest.skip(f"only {hard} files may be open here")
    controller, worker = FakeController(), FakeWorker()
    with contextlib.ExitStack() as stack:
        stack.callback(controller.close)
        stack.callback(worker.close)
        with limited(256):
            gateway = GatewayProcess(controller.url)
        stack.callback(gateway.stop)
        gateway.until_up()
        Bench(controller, gateway).serve(worker.replica("m"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, many + 200), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        before = resident_mib(gateway.process.pid)
        clients = [stack.enter_context(Client(gateway.port, 60)) for _ in range(many)]
        wait_until(lambda: connections(gateway.port) == many, 30)
        for client in clients:
            client.send(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert {client.answer("GET").status for client in clients} == {200}
        for client in clients[::50]:
            client.post({"model": "m"})
        assert {client.answer().status for client in clients[::50]} == {200}
        each = (resident_mib(gateway.process.pid) - before) * 1024 / many
        print(f"{each:.1f} KiB a connection")
        assert each < 40
        for client in clients:
            client.sock.close()
        wait_until(lambda: connections(gateway.port) == 0, 30)
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log


def test_without_files_left_those_who_are_in_are_served_and_others_when_there_are() -> None:
    controller, worker = FakeController(), FakeWorker()
    with contextlib.ExitStack() as stack:
        stack.callback(controller.close)
        stack.callback(worker.close)
        gateway = GatewayProcess(controller.url)
        stack.callback(gateway.stop)
        gateway.until_up()
        bench = Bench(controller, gateway)
        bench.serve(worker.replica("m"))
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (100, 100))
        first = stack.enter_context(Client(gateway.port))
        first.post({"model": "m"})
        assert first.answer().status == 200
        clients = []
        for _ in range(150):
            with contextlib.suppress(OSError):
                clients.append(stack.enter_context(Client(gateway.port, 5)))
        for _ in range(3):
            first.post({"model": "m"})
            assert first.answer().status == 200
        for client in [first, *clients]:
            client.sock.close()
        wait_until(lambda: reached(gateway.port), 20)
        assert {chat(gateway.port, "m").status for _ in range(5)} == {200}
        assert bench.metric("breaker_state", replica=worker.url) == 0
        assert gateway.stop() == 0


def test_files_that_are_missing_are_not_a_replicas_fault() -> None:
    controller, worker = FakeController(), FakeWorker()
    with contextlib.ExitStack() as stack:
        stack.callback(controller.close)
        stack.callback(worker.close)
        gateway = GatewayProcess(controller.url)
        stack.callback(gateway.stop)
        gateway.until_up()
        bench = Bench(controller, gateway)
        bench.serve(worker.replica("m"))
        client = stack.enter_context(Client(gateway.port))
        wait_until(lambda: connections(gateway.port) == 1)
        pid = gateway.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
        client.post({"model": "m"})
        answer = client.answer()
        assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert bench.metric("breaker_state", replica=worker.url) == 0
        client.post({"model": "m"})
        assert client.answer().status == 200


def reached(port: int) -> bool:
    try:
        return connections(port) == 0
    except (OSError, AssertionError):
        return False
