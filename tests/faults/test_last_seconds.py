"""What clients see of the last seconds of a gateway."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.integration.gateway.fakes import Bench, Client, Seen, Talk, running
from tests.support.waiting import wait_until

STREAMS = 6


def endless(talk: Talk, seen: Seen) -> None:
    talk.start_stream()
    talk.event({"n": 1})
    talk.wait_for_peer_to_leave(30)


@contextlib.contextmanager
def open_streams(bench: Bench) -> Iterator[list[Client]]:
    bench.serve(bench.worker(endless).replica("m"))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(bench.port)) for _ in range(STREAMS)]
        for client in clients:
            client.post({"model": "m", "stream": True})
            assert client.head()[0] == 200
            client.chunk()
        yield clients


@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_stream_is_cut_silently_when_the_grace_is_over(processes: str) -> None:
    with running("--processes", processes, "--stop-grace", "0.3") as bench, open_streams(bench) as clients:
        bench.gateway.process.send_signal(signal.SIGTERM)
        for client in clients:
            assert b"stream_interrupted" in client.chunk()
            assert client.closed()
        assert bench.gateway.finish() == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_second_sigterm_cuts_no_stream(processes: str) -> None:
    """A service manager signals every process of its group, and the supervisor signals the gateway again."""
    with running("--processes", processes, "--stop-grace", "2") as bench, open_streams(bench) as clients:
        parent = psutil.Process(bench.gateway.process.pid)
        tree = [parent, *parent.children()]
        for process in tree:
            process.send_signal(signal.SIGTERM)
        wait_until(lambda: bench.gateway.log.count("stopping") >= int(processes))
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):  # its grace is over: the machine is busy
                process.send_signal(signal.SIGTERM)
        for client in clients:
            assert b"stream_interrupted" in client.chunk()
        assert bench.gateway.finish() == 0
