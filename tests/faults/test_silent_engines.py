"""Engines that accept requests, answer /health, and say nothing more."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator

import pytest

from tests.integration.cli.support import Fake, tell, write
from tests.integration.gateway.fakes import Bench, Client, FakeWorker, Seen, Talk, chat, running
from tests.support import deployment
from tests.support.waiting import wait_until

LIMIT_S = 1.0
STREAM = {"model": "m", "stream": True, "messages": []}


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    with running() as bench:
        yield bench


@pytest.fixture
def bench(shared: Bench) -> Iterator[Bench]:
    yield shared
    shared.clear()


class Freezing:
    """A worker that can be frozen: it keeps what it is asked, and goes on with it when it is thawed."""

    def __init__(self, bench: Bench) -> None:
        self.thawed = threading.Event()
        self.thawed.set()
        self.worker: FakeWorker = bench.worker(self.behave)

    def behave(self, talk: Talk, seen: Seen) -> None:
        if seen.json.get("stream"):
            talk.start_stream()
            talk.event({"n": 1})
        self.thawed.wait(20)
        if seen.json.get("stream"):
            talk.end_stream()
        else:
            talk.reply({"from": "frozen"})


def state(bench: Bench, worker: FakeWorker) -> float:
    return bench.metric("breaker_state", replica=worker.url)


def test_a_frozen_engine_is_left_out_what_it_has_goes_on_elsewhere_and_it_comes_back(bench: Bench) -> None:
    frozen, well = Freezing(bench), bench.worker()
    bench.serve(
        frozen.worker.replica("m", request_timeout_s=LIMIT_S),
        well.replica("m", queue_length=50, request_timeout_s=LIMIT_S),
    )
    frozen.thawed.clear()
    with Client(bench.port, timeout=20) as stalled, Client(bench.port, timeout=20) as waiting:
        stalled.post(STREAM)
        assert stalled.head()[0] == 200
        waiting.post({"model": "m", "messages": [], "n": 1})
        # Nobody had to wait for its client: the other one answers.
        assert waiting.answer().json["worker"] == well.url
        assert b"stream_interrupted" in stalled.to_the_end()
    assert state(bench, frozen.worker) == 2
    assert "does not answer a tiny request either" in bench.gateway.log
    assert bench.metric("upstream_errors_total", replica=frozen.worker.url, kind="silent") == 2
    before = len(frozen.worker.seen)
    for number in range(5):
        assert chat(bench.port, "m", n=number).json["worker"] == well.url
    assert len(frozen.worker.seen) == before
    frozen.thawed.set()
    wait_until(lambda: state(bench, frozen.worker) == 0)
    assert chat(bench.port, "m").json == {"from": "frozen"}


def test_an_engine_that_is_slow_with_one_request_and_answers_a_tiny_one_is_left_alone(bench: Bench) -> None:
    asked: list[bytes] = []
    go_on = threading.Event()

    def behave(talk: Talk, seen: Seen) -> None:
        if b"slow" in seen.body:
            go_on.wait(20)
        else:
            asked.append(seen.body)
        talk.reply({"ok": True})

    slow, other = bench.worker(behave), bench.worker()
    bench.serve(slow.replica("m", request_timeout_s=LIMIT_S), other.replica("m", queue_length=50))
    with Client(bench.port, timeout=20) as client:
        client.post({"model": "m", "messages": [{"role": "user", "content": "slow"}]})
        # Each of these is a doubt that was settled; together they are longer than the limit.
        wait_until(lambda: len(asked) >= 3)
        assert all(b'"max_tokens": 1}' in body for body in asked)
        assert state(bench, slow) == 0
        go_on.set()
        assert client.answer().json == {"ok": True}
    assert other.seen == []


def test_a_request_that_freezes_two_engines_is_not_sent_to_a_third(bench: Bench) -> None:
    frozen = [Freezing(bench) for _ in range(3)]
    bench.serve(*[one.worker.replica("m", request_timeout_s=LIMIT_S) for one in frozen])

    def freeze(talk: Talk, seen: Seen) -> None:
        if b"poison" in seen.body:
            next(one for one in frozen if one.worker is talk.worker).thawed.clear()
        Freezing.behave(next(one for one in frozen if one.worker is talk.worker), talk, seen)

    for one in frozen:
        one.worker.behave = freeze
    with Client(bench.port, timeout=20) as client:
        client.post({"model": "m", "messages": [], "user": "poison"})
        answer = client.answer()
    assert (answer.status, answer.error["code"]) == (500, "request_breaks_replicas")
    assert sum(not one.thawed.is_set() for one in frozen) == 2
    assert chat(bench.port, "m").status == 200
    for one in frozen:
        one.thawed.set()


def test_in_a_deployment_nobody_waits_for_an_engine_that_answers_health_alone() -> None:
    with deployment.cli() as cli:
        fake = Fake("m", replicas=2, more={"request_timeout": "1s"})
        write(cli, fake)
        cli.ok("up", "-d")
        tell(f"http://127.0.0.1:{fake.port}", "/set", first_delay=1000.0)
        port = int(cli.status()["api"]["url"].split(":")[2].split("/")[0])
        with concurrent.futures.ThreadPoolExecutor(4) as clients:
            answers = list(clients.map(lambda number: chat(port, "m", n=number), range(4)))
        assert [answer.status for answer in answers] == [200] * 4
        assert "sent nothing for" in cli.ok("logs", "api")
        assert {component["phase"] for component in cli.status()["components"]} == {"ready"}
        cli.ok("down")
