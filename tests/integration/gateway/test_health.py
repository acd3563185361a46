"""Replicas that answer badly are left out and come back; retries do not run away."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from llmlaunch.gateway.routing.retry import RetryBudget
from tests.integration.gateway.fakes import Bench, Client, Seen, Talk, ask, chat, running
from tests.support.waiting import wait_until


def test_a_replica_that_only_errs_is_left_out_until_a_probe_goes_well(bench: Bench) -> None:
    ill = True

    def behave(talk: Talk, seen: Seen) -> None:
        if ill:
            talk.reply({"error": {"message": "out of memory"}}, status=500)
        else:
            talk.reply({"ok": True})

    sick, well = bench.worker(behave), bench.worker()
    # Nearly every draw would fall on the sick one.
    bench.serve(sick.replica("m", speed=1e6), well.replica("m", speed=1.0), dispatch="lottery")
    statuses = [chat(bench.port, "m").status for _ in range(5)]
    assert statuses == [500] * 5
    assert bench.metric("breaker_state", replica=sick.url) > 0
    # While it rests, and whenever a probe comes in between, at most that probe fails.
    statuses = [chat(bench.port, "m").status for _ in range(100)]
    assert statuses.count(500) <= len(sick.seen) - 5
    assert len(well.seen) > 50
    ill = False

    def closed() -> bool:
        chat(bench.port, "m")
        return bench.metric("breaker_state", replica=sick.url) == 0

    wait_until(closed, 20, "the breaker closes")
    before = len(sick.seen)
    assert {chat(bench.port, "m").status for _ in range(10)} == {200}
    assert len(sick.seen) == before + 10


def test_retries_end_when_most_requests_need_one() -> None:
    """All at once: the budget grows with time, so requests one after the other end it only on a quick machine."""
    together, refuse = 300, threading.Event()

    def busy(talk: Talk, seen: Seen) -> None:
        refuse.wait(60)
        talk.reply({}, status=503)

    with running() as bench, contextlib.ExitStack() as open_clients:
        first, second = bench.worker(busy), bench.worker()
        bench.serve(first.replica("m", speed=1e9), second.replica("m", speed=1.0), dispatch="lottery")
        clients = []
        for number in range(1, together + 1):
            clients.append(open_clients.enter_context(Client(bench.port, timeout=60)))
            clients[-1].post({"model": "m", "messages": []})
            if number % 50 == 0:  # no more than the worker's backlog holds
                wait_until(lambda: len(first.seen) == number, 60, "the first worker to hold them")  # noqa: B023
        refuse.set()
        answers = [client.answer() for client in clients]
        refused = [answer for answer in answers if answer.status != 200]
        retried = together - len(refused)
        # What it starts with, and a share of a retry for each request (rounded).
        assert RetryBudget().level + together * RetryBudget.SHARE - 1 <= retried < together
        for answer in refused:
            assert (answer.status, "retried" in answer.error["message"]) == (503, True)
            assert answer.headers["retry-after"]
        assert bench.metric("retries_total", reason="unavailable") == retried == len(second.seen)
        page = ask(bench.port, "GET", "/metrics").body.decode()
        assert "llmlaunch_gateway_retry_budget" in page


def test_an_endpoint_that_is_open_to_everybody_says_so(tmp_path: Path) -> None:
    """The supervisor shows it beside the component."""
    keys = tmp_path / "keys"
    keys.write_text("alice: sk-alice\n")
    keys.chmod(0o600)
    everywhere = ("--host", "0.0.0.0")
    for options, said in (
        (everywhere, True),
        ((), False),
        ((*everywhere, "--api-keys-file", str(keys)), False),
    ):
        with running(*options) as bench:
            assert ("warning" in ask(bench.port, "GET", "/health").json) == said, options
