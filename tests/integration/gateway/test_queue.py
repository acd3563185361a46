"""A replica's cap is kept, the wait for it is bounded and first come first served."""

from __future__ import annotations

import threading

from tests.integration.gateway.fakes import Bench, Client, Seen, Talk, chat
from tests.support.waiting import wait_until


class Gate:
    """A worker's behaviour that answers one request for each permit, and counts how many it holds at once."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.order: list[int] = []

    def __call__(self, talk: Talk, seen: Seen) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.order.append(seen.json.get("n", 0))
        self.permits.acquire(timeout=30)
        with self.lock:
            self.now -= 1
        talk.reply({})


def post(bench: Bench, number: int) -> Client:
    client = Client(bench.port, timeout=30)
    client.post({"model": "m", "n": number})
    return client


def test_the_cap_is_never_passed_and_turns_are_kept(bench: Bench) -> None:
    gate = Gate()
    worker = bench.worker(gate)
    bench.serve(worker.replica("m", max_concurrency=2))
    clients = []
    for number in range(8):
        clients.append(post(bench, number))
        wait_until(lambda: gate.now + bench.metric("waiting", model="m") == len(clients))
    assert (gate.now, bench.metric("waiting", model="m")) == (2, 6)
    gate.permits.release(8)
    assert [client.answer().status for client in clients] == [200] * 8
    for client in clients:
        client.sock.close()
    assert gate.most == 2
    assert sorted(gate.order[:2]) == [0, 1]
    assert sorted(gate.order) == list(range(8))


def test_beyond_the_queue_is_429_with_retry_after(bench: Bench) -> None:
    gate = Gate()
    bench.serve(bench.worker(gate).replica("m", max_concurrency=1))
    clients = [post(bench, number) for number in range(1 + 4 + 64)]
    wait_until(lambda: bench.metric("waiting", model="m") == 68)
    answer = chat(bench.port, "m")
    assert (answer.status, answer.error["code"]) == (429, "queue_full")
    assert answer.headers["retry-after"]
    gate.permits.release(len(clients))
    assert [client.answer().status for client in clients] == [200] * len(clients)
    for client in clients:
        client.sock.close()


def test_who_leaves_the_queue_frees_its_place_and_is_never_sent(bench: Bench) -> None:
    gate = Gate()
    worker = bench.worker(gate)
    bench.serve(worker.replica("m", max_concurrency=1))
    first = post(bench, 1)
    wait_until(lambda: gate.now == 1)
    post(bench, 2).sock.close()
    third = post(bench, 3)
    wait_until(lambda: bench.metric("waiting", model="m") == 1)
    gate.permits.release(3)
    assert [first.answer().status, third.answer().status] == [200, 200]
    first.sock.close()
    third.sock.close()
    assert gate.order == [1, 3]


def test_a_new_replica_takes_from_the_queue_at_once(bench: Bench) -> None:
    gate, other = Gate(), bench.worker()
    worker = bench.worker(gate)
    bench.serve(worker.replica("m", max_concurrency=1))
    first, second = post(bench, 1), post(bench, 2)
    wait_until(lambda: bench.metric("waiting", model="m") == 1)
    bench.serve(worker.replica("m", max_concurrency=1), other.replica("m"))
    assert second.answer().status == 200
    gate.permits.release()
    assert first.answer().status == 200
    first.sock.close()
    second.sock.close()


def test_waiting_for_a_model_that_goes_away_ends_in_503(bench: Bench) -> None:
    gate = Gate()
    bench.serve(bench.worker(gate).replica("m", max_concurrency=1), expected=["m"])
    first, second = post(bench, 1), post(bench, 2)
    wait_until(lambda: bench.metric("waiting", model="m") == 1)
    bench.serve(expected=["m"])
    assert second.answer().status == 503
    gate.permits.release()
    assert first.answer().status == 200
    first.sock.close()
    second.sock.close()


def test_a_retry_that_waits_holds_nobody_up(bench: Bench) -> None:
    """Its only free replica has failed it already; others may use that one, and it gets the next slot elsewhere."""
    gate = Gate()

    def weak(talk: Talk, seen: Seen) -> None:
        if seen.json["n"] == 1:
            talk.reset()
        else:
            talk.reply({})

    failing, busy = bench.worker(weak), bench.worker(gate)
    bench.serve(failing.replica("m", max_concurrency=1, queue_length=9), busy.replica("m", max_concurrency=1))
    zero = post(bench, 0)
    wait_until(lambda: gate.now == 1)
    one = post(bench, 1)
    wait_until(lambda: bench.metric("waiting", model="m") == 1)
    two = post(bench, 2)
    assert two.answer().status == 200
    assert len(failing.seen) == 2
    gate.permits.release(2)
    assert [zero.answer().status, one.answer().status] == [200, 200]
    for client in (zero, one, two):
        client.sock.close()
