"""Replicas that answer badly are left out and come back; retries do not run away."""

from __future__ import annotations

from tests.integration.gateway.fakes import Bench, Seen, Talk, ask, chat, running
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
    def busy(talk: Talk, seen: Seen) -> None:
        talk.reply({}, status=503)

    with running() as bench:
        first, second = bench.worker(busy), bench.worker()
        bench.serve(first.replica("m", speed=1e9), second.replica("m", speed=1.0), dispatch="lottery")
        statuses = [chat(bench.port, "m").status for _ in range(100)]
        assert statuses == [200] * 100
        retried = 100
        while (answer := chat(bench.port, "m")).status == 200:
            retried += 1
            assert retried < 3000
        assert (answer.status, "retried" in answer.error["message"]) == (503, True)
        assert answer.headers["retry-after"]
        assert bench.metric("retries_total", reason="unavailable") == retried
        page = ask(bench.port, "GET", "/metrics").body.decode()
        assert "llmlaunch_gateway_retry_budget" in page
