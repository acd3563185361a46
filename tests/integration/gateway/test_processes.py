"""``llmlaunch api --processes N``: one endpoint, one set of figures, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.gateway.fakes import Bench, Client, Seen, Talk, ask, chat, metric, running
from tests.support.ports import free_port
from tests.support.waiting import wait_until


def children(bench: Bench) -> list[psutil.Process]:
    return psutil.Process(bench.gateway.process.pid).children()


def answered(bench: Bench) -> float:
    return bench.metric("requests_total", path="/v1/chat/completions", status="200")


@pytest.fixture
def group() -> Iterator[Bench]:
    with running("--processes", "3") as bench:
        yield bench


def test_any_process_tells_the_sum_while_processes_come_and_go(group: Bench) -> None:
    worker = group.worker()
    group.serve(worker.replica("m"))
    before = {child.pid for child in children(group)}
    assert len(before) == 3
    for _ in range(60):
        assert chat(group.port, "m").status == 200
    wait_until(lambda: answered(group) == 60)
    # Every connection may meet another process: they must agree.
    assert {answered(group) for _ in range(12)} == {60}
    wait_until(lambda: group.metric("processes") == 3)
    cpu = psutil_metric(group, "process_cpu_seconds_total")
    victim = before.pop()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: "signal 9" in group.gateway.log)
    wait_until(lambda: {child.pid for child in children(group)} > before)
    for _ in range(60):
        assert chat(group.port, "m").status == 200
    wait_until(lambda: group.metric("processes") == 3)
    wait_until(lambda: answered(group) == 120)
    assert {answered(group) for _ in range(12)} == {120}
    page = ask(group.port, "GET", "/metrics").body.decode()
    assert metric(page, "request_duration_seconds_count", path="/v1/chat/completions") == 120
    assert metric(page, "request_duration_seconds_bucket", path="/v1/chat/completions", le="+Inf") == 120
    assert metric(page, "completion_tokens_total", model="m") == 240
    assert metric(page, "process_exits_total") == 1
    assert len(worker.seen) == 120
    assert psutil_metric(group, "process_cpu_seconds_total") >= cpu
    assert {child.pid for child in children(group)} > before


def psutil_metric(bench: Bench, name: str) -> float:
    page = ask(bench.port, "GET", "/metrics").body.decode()
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(f"{name} "))


def test_figures_begin_when_a_process_does() -> None:
    """A process that has not heard from the controller yet counts with the oldest routes: none."""
    with running("--processes", "2", token="not ours") as bench:
        page = ask(bench.port, "GET", "/metrics").body.decode()
        assert "llmlaunch_gateway_processes 2" in page
        assert "llmlaunch_gateway_routes_revision 0" in page
        assert "llmlaunch_gateway_controller_up 0" in page


def test_gauges_are_those_of_all_and_go_with_their_process(group: Bench) -> None:
    ready = threading.Event()

    def behave(talk: Talk, seen: Seen) -> None:
        ready.wait(20)
        talk.reply({})

    worker = group.worker(behave)
    group.serve(worker.replica("m"))
    clients = [Client(group.port) for _ in range(12)]
    try:
        for client in clients:
            client.post({"model": "m"})
        wait_until(lambda: group.metric("in_flight", replica=worker.url) == 12)
        wait_until(lambda: group.metric("connections") == 13)
        stopped = max(children(group), key=lambda child: len(child.net_connections()))
        stopped.kill()
        wait_until(lambda: group.metric("in_flight", replica=worker.url) < 12)
        wait_until(lambda: group.metric("processes") == 3)
        left = group.metric("in_flight", replica=worker.url)
        ready.set()
        wait_until(lambda: group.metric("in_flight", replica=worker.url) == 0)
        wait_until(lambda: group.metric("requests_total", path="/v1/chat/completions") == left)
    finally:
        for client in clients:
            client.sock.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("everybody", [False, True], ids=["the parent", "the whole tree"])
def test_a_signal_drains_them_all(group: Bench, number: signal.Signals, code: int, everybody: bool) -> None:
    """A supervisor and a terminal signal the whole tree, a user the parent: both mean the same."""
    ready = threading.Event()

    def behave(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        talk.event({"n": 1})
        ready.wait(20)
        talk.end_stream()

    group.serve(group.worker(behave).replica("m"))
    clients = [Client(group.port) for _ in range(8)]
    try:
        for client in clients:
            client.post({"model": "m", "stream": True})
            assert client.head()[0] == 200
            client.chunk()
        tree = [*children(group), psutil.Process(group.gateway.process.pid)]
        for process in tree if everybody else tree[-1:]:
            process.send_signal(number)
        wait_until(lambda: not listens(group.port))
        ready.set()
        for client in clients:
            assert client.chunk() == b"data: [DONE]\n\n"
            assert client.chunk() == b""
        assert group.gateway.finish() == code
        assert "Traceback" not in group.gateway.log
        assert not any(process.is_running() for process in tree)
    finally:
        for client in clients:
            client.sock.close()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def test_nothing_is_left_when_the_parent_is_killed(group: Bench) -> None:
    tree = children(group)
    group.gateway.stop(signal.SIGKILL)
    _, alive = psutil.wait_procs(tree, timeout=10)
    assert not alive
    with socket.create_server(("127.0.0.1", group.port)):
        pass


def test_a_process_that_is_told_to_end_finishes_and_is_replaced(group: Bench) -> None:
    group.serve(group.worker().replica("m"))
    first = children(group)[0]
    first.terminate()
    wait_until(lambda: not first.is_running() or first.status() == psutil.STATUS_ZOMBIE)
    wait_until(lambda: len(children(group)) == 3)
    for _ in range(20):
        assert chat(group.port, "m").status == 200


def test_limits_of_keys_and_replicas_are_those_of_all_together(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice: sk-alice  rpm=30\nbob: sk-bob\n")
    keys.chmod(0o600)
    ready = threading.Event()

    def behave(talk: Talk, seen: Seen) -> None:
        ready.wait(20)
        talk.reply({})

    with running("--processes", "3", "--api-keys-file", str(keys)) as bench:
        slow, quick = bench.worker(behave), bench.worker()
        bench.serve(slow.replica("slow", max_concurrency=6), quick.replica("m"))

        def post(key: str, model: str) -> int:
            body = {"model": model, "messages": []}
            answer = ask(bench.port, "POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {key}"})
            if answer.status == 429:
                assert "30 requests a minute" in answer.error["message"]
            return answer.status

        statuses = [post("sk-alice", "m") for _ in range(90)]
        # 10 in each process, and what a second or two bring back.
        assert 20 <= statuses.count(200) <= 34
        threads = [threading.Thread(target=post, args=("sk-bob", "slow")) for _ in range(24)]
        for thread in threads:
            thread.start()
        wait_until(lambda: bench.metric("waiting") + bench.metric("in_flight", replica=slow.url) == 24)
        assert bench.metric("in_flight", replica=slow.url) <= 6
        ready.set()
        for thread in threads:
            thread.join()
        assert len(slow.seen) == 24


def test_each_line_of_the_access_log_is_whole() -> None:
    with running("--processes", "3", "--access-log") as bench:
        bench.serve(bench.worker().replica("m"))
        name = "x" * 200
        threads = [
            threading.Thread(target=lambda: [chat(bench.port, name) for _ in range(30)]) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bench.gateway.stop() == 0
        lines = [line for line in bench.gateway.output_lines if name in line]
        assert len(lines) == 180
        assert all(line.startswith('{"time"') and line.endswith("}\n") for line in lines)


def test_a_port_is_not_shared_with_another_gateway(group: Bench) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llmlaunch", "api", "--processes", "2", "--port", str(group.port)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, "is taken by" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("number", ["0", "65", "many"])
def test_numbers_of_processes_that_can_not_be(number: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llmlaunch", "api", "--processes", number, "--port", str(free_port())],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--processes" in done.stderr
    assert "Traceback" not in done.stderr
