"""Numbers that processes share: what one writes, another reads, and sums are sums."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llmlaunch.gateway.multiprocess.shared_counters import SharedCounters
from llmlaunch.gateway.observe.metrics import GatewayMetrics, Gauges, exited, render, withdraw
from tests.support.outcomes import outcome

NAMES = st.tuples(st.text(max_size=12), st.text(max_size=12))


@settings(max_examples=50)
@given(st.lists(st.tuples(NAMES, st.integers(1, 20)), max_size=30))
def test_records_are_found_again_by_others(records: Sequence[tuple[tuple[str, str], int]]) -> None:
    board = SharedCounters(1 << 16)
    sizes = dict(reversed(records))
    for number, (name, _) in enumerate(records):
        at = board.place(name, sizes[name])
        board.values[at + sizes[name] - 1] += number
    expected = {name: sum(n for n, (other, _) in enumerate(records) if other == name) for name in sizes}
    found = {name: board.values[at + size - 1] for name, (at, size) in board.places().items()}
    assert found == expected


def test_another_process_reads_what_one_wrote_even_after_its_end() -> None:
    board = SharedCounters(1 << 16)
    pid = os.fork()
    if pid == 0:
        board.values[board.place(("a", "é\0"))] += 7
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    (at, size) = board.places()["a", "é\0"]
    assert (board.values[at], size) == (7, 1)
    assert board.place(("a", "é\0")) == at


def test_a_full_board_counts_no_more_and_breaks_nothing() -> None:
    board = SharedCounters(1 << 12)
    places = [board.place((f"name {number}",), 18) for number in range(100)]
    assert board.full
    for at in places:
        for step in range(18):
            board.values[at + step] += 1.0
    found = board.places()
    assert 0 < len(found) < 100
    assert all(board.values[at] == 1.0 for at, _ in found.values())


def gauges(**more: Any) -> Gauges:
    values: dict[str, Any] = {
        "in_flight": {}, "waiting": {}, "breakers": {}, "retries_left": 1.5, "connections": 2, "controller_up": True,
        "routes_revision": 5, "cpu_seconds": 1.0, "resident_bytes": 10,
    }  # fmt: skip
    return Gauges(**(values | more))


def test_sums_over_processes() -> None:
    boards = [SharedCounters(1 << 16), SharedCounters(1 << 16)]
    one, two = map(GatewayMetrics, boards)
    for metrics, seconds in ((one, 0.001), (two, 0.02), (two, 1000.0)):
        metrics.ended(outcome("/p", "m", "r", "alice", 200, seconds, tokens=(10, 2)))
    one.publish(gauges(in_flight={"r": 1}, breakers={"r": 2}, controller_up=False))
    two.publish(gauges(in_flight={"r": 2, "s": 4}, breakers={"r": 0}, routes_revision=7))
    page = render(boards).decode()
    for line in (
        'llmlaunch_gateway_requests_total{path="/p",model="m",replica="r",key="alice",status="200"} 3',
        'llmlaunch_gateway_prompt_tokens_total{model="m",key="alice"} 30',
        'llmlaunch_gateway_request_duration_seconds_bucket{path="/p",model="m",le="0.025"} 2',
        'llmlaunch_gateway_request_duration_seconds_bucket{path="/p",model="m",le="+Inf"} 3',
        'llmlaunch_gateway_request_duration_seconds_count{path="/p",model="m"} 3',
        'llmlaunch_gateway_in_flight{replica="r"} 3',
        'llmlaunch_gateway_in_flight{replica="s"} 4',
        'llmlaunch_gateway_breaker_state{replica="r"} 2',
        "llmlaunch_gateway_retry_budget 3",
        "llmlaunch_gateway_connections 4",
        "llmlaunch_gateway_controller_up 0",
        "llmlaunch_gateway_routes_revision 5",
        "llmlaunch_gateway_processes 2",
        "process_cpu_seconds_total 2",
        "process_resident_memory_bytes 20",
    ):
        assert line in page.splitlines()


def test_counters_outlive_their_process_and_gauges_do_not() -> None:
    boards = [SharedCounters(1 << 16), SharedCounters(1 << 16)]
    one, two = map(GatewayMetrics, boards)
    for metrics in (one, two):
        metrics.ended(outcome("/p", "m", "r", "", 200, 0.5))
        metrics.publish(gauges(in_flight={"r": 3}))
    exited(boards[0])
    page = render(boards).decode().splitlines()
    assert 'llmlaunch_gateway_in_flight{replica="r"} 3' in page
    assert "llmlaunch_gateway_processes 1" in page
    assert "llmlaunch_gateway_process_exits_total 1" in page
    again = GatewayMetrics(boards[0])
    again.ended(outcome("/p", "m", "r", "", 200, 0.5))
    again.publish(gauges(cpu_seconds=0.25))
    page = render(boards).decode().splitlines()
    assert 'llmlaunch_gateway_requests_total{path="/p",model="m",replica="r",key="",status="200"} 3' in page
    assert "process_cpu_seconds_total 2.25" in page


def test_a_gauge_goes_with_what_it_measured() -> None:
    board = SharedCounters(1 << 16)
    metrics = GatewayMetrics(board)
    metrics.publish(gauges(in_flight={"r": 3, "s": 0}))
    metrics.publish(gauges(in_flight={"s": 1}))
    page = render([board]).decode()
    assert 'in_flight{replica="r"}' not in page
    assert 'in_flight{replica="s"} 1' in page
    withdraw(board)
    assert "llmlaunch_gateway_in_flight{" not in render([board]).decode()
