"""Requests that would hurt others: each of them is kept from doing so."""

from __future__ import annotations

import contextlib
import threading

import openai
import pytest

from tests.integration.gateway.fakes import Bench, Client, FakeWorker, Seen, Talk, ask, chat, running
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


class Crashing:
    """Workers that end when they are asked about poison, and before that, if told to, answer nobody."""

    def __init__(self, bench: Bench, count: int) -> None:
        self.down: list[FakeWorker] = []
        self.silent: set[int] = set()
        """Ports of those that answer nobody, and only die."""
        self.workers = [bench.worker(self.behave) for _ in range(count)]

    def behave(self, talk: Talk, seen: Seen) -> None:
        worker = talk.worker
        if b"poison" in seen.body:
            self.down.append(worker)
            worker.close()
        elif worker.port in self.silent:
            talk.wait_for_peer_to_leave()
        else:
            talk.reply({"ok": True})


@pytest.mark.parametrize("pooled", [False, True])
def test_a_request_that_crashes_engines_takes_two_of_them_and_none_of_the_others(pooled: bool) -> None:
    """Also when its client tries again, and however many others were with it when it happened."""
    with running() as bench, contextlib.ExitStack() as stack:
        crashing = Crashing(bench, 4)
        first, *others = crashing.workers
        if pooled:
            # Connections that were used before: when they break, it may only be that they were idle for too long.
            bench.serve(*[worker.replica("m") for worker in crashing.workers], dispatch="round_robin")
            clients = [stack.enter_context(Client(bench.port)) for _ in range(48)]
            for number, client in enumerate(clients):
                client.post({"model": "m", "n": f"warm {number}"})
            assert {client.answer().status for client in clients} == {200}
        # All go to the first one, for the others look busy.
        bench.serve(
            first.replica("m"), *[w.replica("m", queue_length=50) for w in others], dispatch="shortest_queue"
        )
        crashing.silent.add(first.port)
        before = len(first.seen)
        innocent = [stack.enter_context(Client(bench.port)) for _ in range(12)]
        for number, client in enumerate(innocent):
            client.post({"model": "m", "messages": [], "n": number})
        wait_until(lambda: len(first.seen) - before == 12)
        poison = {"model": "m", "messages": [{"role": "user", "content": "poison"}]}
        refused = ask(bench.port, "POST", "/v1/chat/completions", poison)
        assert (refused.status, refused.error["code"]) == (500, "request_breaks_replicas")
        assert [client.answer().status for client in innocent] == [200] * 12
        assert len(crashing.down) == 2
        for _ in range(3):
            refused = ask(bench.port, "POST", "/v1/chat/completions", poison)
            assert (refused.status, refused.error["code"]) == (500, "request_breaks_replicas")
        assert len(crashing.down) == 2
        assert chat(bench.port, "m").status == 200


def test_a_request_that_comes_once_a_second_ends_its_only_replica_twice_and_no_more() -> None:
    with running() as bench:
        crashing = Crashing(bench, 1)
        (worker,) = crashing.workers
        bench.serve(worker.replica("m"))
        statuses = []
        for _ in range(5):
            statuses.append(chat(bench.port, "m", user="poison").status)
            if len(crashing.down) > len(bench.workers) - 1:  # its supervisor starts it again
                bench.workers.append(FakeWorker(crashing.behave, worker.port))
        assert statuses == [503, 500, 500, 500, 500]
        assert len(crashing.down) == 2
        assert chat(bench.port, "m", user="somebody").status == 200


def test_openais_client_does_not_try_such_a_request_again() -> None:
    with running() as bench:
        crashing = Crashing(bench, 4)
        bench.serve(*[worker.replica("m") for worker in crashing.workers])
        client = openai.OpenAI(base_url=f"{bench.gateway.url}/v1", api_key="unused", max_retries=2)
        with client, pytest.raises(openai.InternalServerError, match="not sent to another"):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "poison"}])
        assert bench.metric("requests_total", path="/v1/chat/completions") == 1
        assert len(crashing.down) == 2


def test_what_one_process_of_a_gateway_learnt_all_of_them_know() -> None:
    with running("--processes", "3") as bench:
        crashing = Crashing(bench, 6)
        rows = [worker.replica("m") for worker in crashing.workers]
        bench.controller.set(*rows)
        wait_until(lambda: bench.metric("processes") == 3)
        wait_until(lambda: bench.metric("routes_revision") == bench.controller.routes["rev"])
        # Every connection may meet another process.
        statuses = [chat(bench.port, "m", user="poison").status for _ in range(12)]
        assert statuses == [500] * 12
        assert len(crashing.down) == 2
        assert chat(bench.port, "m").status == 200
