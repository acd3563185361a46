"""What the gateway counts."""

from __future__ import annotations

from llmlaunch.gateway.multiprocess.shared_counters import SharedCounters
from llmlaunch.gateway.observe.metrics import GatewayMetrics, render
from tests.support.outcomes import outcome


def test_histograms_are_cumulative() -> None:
    board = SharedCounters()
    metrics = GatewayMetrics(board)
    for seconds in (0.001, 0.02, 0.02, 1000.0):
        metrics.ended(outcome("/p", "m", "r", "alice", 200, seconds))
    page = render([board]).decode()
    buckets = [
        int(line.rpartition(" ")[2]) for line in page.splitlines() if "duration_seconds_bucket" in line
    ]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[2], buckets[-1]) == (1, 3, 4)
    assert 'requests_total{path="/p",model="m",replica="r",key="alice",status="200"} 4' in page
