"""As many connections as there are files: the gateway answers probes, and an open stream goes on."""

from __future__ import annotations

import contextlib
import resource
import threading
from collections.abc import Callable
from pathlib import Path

from tests.integration.gateway import test_tls
from tests.integration.gateway.fakes import Bench, Client, Seen, Talk, ask, chat, running
from tests.support.waiting import wait_until

LIMIT = 256
FEW_FILES = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))"


class Streams:
    """A worker whose streams go on until the test lets them end."""

    def __init__(self, bench: Bench) -> None:
        self.go_on = threading.Event()
        bench.serve(bench.worker(self.behave).replica("m"), bench.worker().replica("quick"))

    def behave(self, talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        talk.event({"n": 1})
        self.go_on.wait(30)
        talk.end_stream()


def crowd(bench: Bench, stack: contextlib.ExitStack, catch_up: Callable[[], Client]) -> list[Client]:
    """More connections than there are files; the gateway catches up with them now and then, or they wait for its backlog."""
    found = []
    for number in range(LIMIT + 20):
        found.append(stack.enter_context(Client(bench.port)))
        if number % 16 == 0:
            with catch_up() as client:
                client.send(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
                client.head()
    return found


def streaming(bench: Bench) -> Client:
    client = Client(bench.port)
    client.post({"model": "m", "stream": True})
    assert client.head()[0] == 200
    client.chunk()
    return client


def test_idle_connections_give_way_to_probes_and_requests() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with running(prelude=FEW_FILES) as bench, contextlib.ExitStack() as stack:
            streams = Streams(bench)
            stream = stack.enter_context(streaming(bench))
            # More than there are files. Some have asked before, some never.
            idle = crowd(bench, stack, lambda: Client(bench.port))
            for _ in range(20):
                assert ask(bench.port, "GET", "/health").status == 200
                assert chat(bench.port, "quick").status == 200
            assert idle[0].closed(), "the longest idle one has given way"
            newest = idle[-1]
            newest.post({"model": "quick"})
            assert newest.answer().status == 200
            streams.go_on.set()
            assert stream.chunk() == b"data: [DONE]\n\n"
            assert "Traceback" not in bench.gateway.log
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_with_every_file_in_use_probes_are_answered_and_clients_told_to_come_again() -> None:
    with running(prelude=FEW_FILES) as bench, contextlib.ExitStack() as stack:
        streams = Streams(bench)
        clients: list[Client] = []
        answers: list[int] = []
        while 503 not in answers:
            client = stack.enter_context(Client(bench.port))
            client.post({"model": "m", "stream": True})
            answers.append(client.head()[0])
            if answers[-1] == 200:
                client.chunk()
                clients.append(client)
        assert len(clients) > LIMIT // 3
        for _ in range(5):
            assert ask(bench.port, "GET", "/health").status == 200
            refused = chat(bench.port, "quick")
            assert (refused.status, refused.error["code"]) == (503, "too_many_connections")
        streams.go_on.set()
        for client in clients:
            assert client.chunk() == b"data: [DONE]\n\n"
        wait_until(lambda: chat(bench.port, "quick").status == 200)


def test_connections_that_never_begin_a_handshake_give_way() -> None:
    folder = Path(test_tls.__file__).with_name("certificates")
    options = ("--tls-cert", str(folder / "first.pem"), "--tls-key", str(folder / "first-key.pem"))
    with running(*options, prelude=FEW_FILES) as bench, contextlib.ExitStack() as stack:
        silent = crowd(bench, stack, lambda: test_tls.Secure(bench.port, folder / "first.pem"))
        for _ in range(10):
            with test_tls.Secure(bench.port, folder / "first.pem") as client:
                client.send(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
                assert client.answer("GET").status in (200, 503)
        with contextlib.suppress(ConnectionError):
            assert silent[0].closed()
        assert "Traceback" not in bench.gateway.log
