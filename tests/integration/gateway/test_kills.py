"""Engines that are killed at random, with another one always alive: nobody hears of it before the first byte, and
every stream is whole or says that it is not."""

from __future__ import annotations

import contextlib
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.integration.gateway.fakes import HOST, Bench, Client, running
from tests.support import fake_engine
from tests.support.ports import free_port
from tests.support.waiting import wait_until

CLIENTS = 12
ENGINE = [sys.executable, "-I", "-S", fake_engine.__file__, "--names", "m"]


class Engine:
    """A real process at a port of its own, killed and started again."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [*ENGINE, "--port", str(self.port), *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._listens, 20, "the engine listens")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, self.port), 1).close()
            return True
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


class Killer(threading.Thread):
    """Kills one of the engines, starts it again, and goes on to any of them, until it is told to end."""

    def __init__(self, engines: list[Engine], draw: random.Random) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._engines = engines
        self._draw = draw
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(self._draw.uniform(0.02, 0.25)):
            engine = self._draw.choice(self._engines)
            engine.kill()
            self.kills += 1
            self._end.wait(self._draw.uniform(0, 0.3))
            engine.start()

    def end(self) -> None:
        self._end.set()
        self.join(30)


def outcome(port: int, stream: bool) -> str:
    """One request: "whole", "told" (after the first byte, by an error event or a body cut short), or what was wrong."""
    with Client(port, timeout=30) as client:
        client.post({"model": "m", "stream": stream, "messages": []})
        try:
            status, fields = client.head()
        except AssertionError as error:
            return f"before the first byte: {error}"
        if status != 200:
            return f"before the first byte: {status} {client.to_the_end()[:500]!r}"
        if stream:
            return _stream_outcome(client)
        try:
            client.exactly(int(fields["content-length"]))
        except AssertionError:
            return "told"
        return "whole"


def _stream_outcome(client: Client) -> str:
    content = b""
    try:
        while data := client.chunk():
            content += data
    except AssertionError as error:
        return "told" if b'"code": "stream_interrupted"' in content else f"cut without a word: {error}"
    events = [event for event in content.split(b"\n\n") if event]
    # Five words, their end, and [DONE].
    return "whole" if len(events) == 7 and events[-1] == b"data: [DONE]" else f"not whole: {content!r}"


@contextlib.contextmanager
def dying(engines: list[Engine], draw: random.Random) -> Iterator[tuple[Bench, Killer]]:
    killer = Killer(engines, draw)
    with running() as bench:
        try:
            for engine in engines:
                engine.start()
            bench.controller.set(*[{"worker_name": e.url, "model_names": ["m"]} for e in engines])
            bench.gateway.until_serving("m")
            killer.start()
            yield bench, killer
        finally:
            if killer.is_alive():
                killer.end()
            for engine in engines:
                engine.kill()
    assert "Traceback" not in bench.gateway.log


def ask_many(port: int, count: int) -> Counter[str]:
    found: list[str] = []
    numbers = iter(range(count))
    turn = threading.Lock()

    def ask() -> None:
        while True:
            with turn:
                number = next(numbers, None)
            if number is None:
                return
            found.append(outcome(port, stream=number % 2 == 1))

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert len(found) == count
    return Counter(found)


@pytest.mark.parametrize(
    ("count", "kills"),
    [(600, 3), pytest.param(10_000, 100, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_deaths_are_invisible_before_the_first_byte_and_told_after_it(count: int, kills: int) -> None:
    draw = random.Random(count)
    engines = [Engine("--first-delay", "0.01", "--chunk-delay", "0.004") for _ in range(2)]
    began = time.monotonic()
    with dying(engines, draw) as (bench, killer):
        outcomes = ask_many(bench.port, count)
        killer.end()
        wait_until(lambda: bench.metric("in_flight") == 0)
        retried = bench.metric("retries_total")
    print(f"{outcomes}, {killer.kills} kills, {retried:g} retries, {time.monotonic() - began:.1f} s")
    assert outcomes.keys() <= {"whole", "told"}, outcomes
    assert outcomes["whole"] > count / 2
    assert killer.kills >= kills
    assert retried > 0
