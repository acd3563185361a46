"""Requests that would hurt others: each of them is kept from doing so."""

from __future__ import annotations

import threading

from tests.integration.gateway.fakes import Client, Seen, Talk, ask, chat, running
from tests.support.waiting import wait_until

MIB = 1 << 20


def test_large_bodies_beyond_the_memory_for_them_are_refused_and_small_ones_served() -> None:
    go_on = threading.Event()

    def behave(talk: Talk, seen: Seen) -> None:
        if len(seen.body) > MIB:
            go_on.wait(10)
        talk.reply({"ok": True})

    large = b'{"model": "m", "x": "' + b"x" * 3 * MIB + b'"}'
    with running("--max-body-bytes", str(4 * MIB), "--max-bodies-bytes", str(8 * MIB)) as bench:
        worker = bench.worker(behave)
        bench.serve(worker.replica("m"))
        with Client(bench.port) as one, Client(bench.port) as two:
            one.post(large)
            two.post(large)
            wait_until(lambda: len(worker.seen) == 2)
            refused = ask(bench.port, "POST", "/v1/completions", large)
            assert (refused.status, refused.error["code"]) == (503, "bodies_full")
            assert refused.headers["retry-after"]
            assert chat(bench.port, "m").status == 200
            go_on.set()
            assert one.answer().status == two.answer().status == 200
        assert ask(bench.port, "POST", "/v1/completions", large).status == 200
        assert bench.metric("body_bytes") == 0
