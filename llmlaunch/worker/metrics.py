"""The worker's metrics for Prometheus, under vLLM's names where the meaning is the same."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from llmlaunch.worker.types import EngineLoad, GenerationOutput, GenerationRequest

if TYPE_CHECKING:
    from prometheus_client import Metric

FIRST_TOKEN_BOUNDS_S = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.8, 1.5, 3.0, 6.0, 12.0, 30.0, 60.0)
NEXT_TOKEN_BOUNDS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.4, 0.8, 1.5, 3.0)
REQUEST_BOUNDS_S = (0.1, 0.3, 0.8, 1.5, 3.0, 6.0, 12.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Histogram:
    """Counts of values by upper bound, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count ``value``, as often as it occurred."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def cumulative(self) -> list[tuple[str, float]]:
        """Return each upper bound with the number of values up to it, as Prometheus has them."""
        return list(zip((*map(str, self._bounds), "+Inf"), accumulate(self._counts), strict=True))

    @property
    def sum(self) -> float:
        """The sum of all values."""
        return self._sum


class WorkerMetrics:
    """Counters of one worker. Used in the event loop alone."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generation_tokens = 0
        self.embedded_tokens = 0
        self.finished: Counter[str] = Counter()
        self.time_to_first_token = Histogram(FIRST_TOKEN_BOUNDS_S)
        self.inter_token_latency = Histogram(NEXT_TOKEN_BOUNDS_S)
        self.request_latency = Histogram(REQUEST_BOUNDS_S)

    def timer(self, request: GenerationRequest) -> Timer:
        """Return a new timer for ``request``, which arrives now."""
        return Timer(self, len(request.prompt))

    def text(self, model: str, load: EngineLoad) -> str:
        """Return everything in Prometheus' text format."""
        # Imported on the first request for metrics, so that it does not slow down the start.
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Snapshot(self, model, load))
        return generate_latest(registry).decode()


class _Snapshot:
    """A snapshot of the metrics, for prometheus_client to collect."""

    def __init__(self, metrics: WorkerMetrics, model: str, load: EngineLoad) -> None:
        self._metrics, self._load = metrics, load
        self._labels = {"model_name": model}

    def collect(self) -> Iterator[Metric]:
        counts, load = self._metrics, self._load
        yield self._sample("vllm:num_requests_running", "gauge", "Requests currently running.", load.running)
        yield self._sample("vllm:num_requests_waiting", "gauge", "Requests waiting to run.", load.waiting)
        yield self._sample(
            "vllm:kv_cache_usage_perc", "gauge", "Fraction of the KV cache in use, 0 to 1.", load.kv_used
        )
        yield self._sample(
            "vllm:num_preemptions", "counter", "Preemptions of running requests.", load.preempted
        )
        yield self._sample("vllm:prompt_tokens", "counter", "Prompt tokens.", counts.prompt_tokens)
        yield self._sample(
            "vllm:prompt_tokens_cached",
            "counter",
            "Prompt tokens reused from the cache.",
            counts.cached_tokens,
        )
        yield self._sample("vllm:generation_tokens", "counter", "Generated tokens.", counts.generation_tokens)
        yield self._sample("llmlaunch:embedded_tokens", "counter", "Embedded tokens.", counts.embedded_tokens)
        yield self._finished()
        yield self._histogram("vllm:time_to_first_token_seconds", counts.time_to_first_token)
        yield self._histogram("vllm:inter_token_latency_seconds", counts.inter_token_latency)
        yield self._histogram("vllm:e2e_request_latency_seconds", counts.request_latency)

    def _sample(self, name: str, kind: str, help_text: str, value: float) -> Metric:
        """A metric of one sample; a counter's sample ends in ``_total``."""
        from prometheus_client import Metric

        found = Metric(name, help_text, kind)
        found.add_sample(name + ("_total" if kind == "counter" else ""), self._labels, value)
        return found

    def _finished(self) -> Metric:
        from prometheus_client import Metric

        name = "vllm:request_success"
        found = Metric(name, "Finished requests by reason.", "counter")
        for why, count in sorted(self._metrics.finished.items()):
            found.add_sample(f"{name}_total", self._labels | {"finished_reason": why}, count)
        return found

    def _histogram(self, name: str, histogram: Histogram) -> Metric:
        from prometheus_client import Metric

        found = Metric(name, "Seconds.", "histogram")
        buckets = histogram.cumulative()
        for bound, count in buckets:
            found.add_sample(f"{name}_bucket", self._labels | {"le": bound}, count)
        found.add_sample(f"{name}_sum", self._labels, histogram.sum)
        found.add_sample(f"{name}_count", self._labels, buckets[-1][1])
        return found


class Timer:
    """Measures one request from its arrival, and counts its tokens."""

    def __init__(self, metrics: WorkerMetrics, prompt_tokens: int) -> None:
        self._metrics = metrics
        self._prompt_tokens = prompt_tokens
        self._started_at = time.perf_counter()
        self._last_token_at = 0.0
        self._tokens = 0

    def take(self, output: GenerationOutput) -> None:
        """Count ``output``, which arrives now."""
        now = time.perf_counter()
        new_tokens = max(0, output.completion_tokens - self._tokens)
        if new_tokens and not self._tokens:
            self._metrics.time_to_first_token.observe(now - self._started_at)
            self._metrics.prompt_tokens += self._prompt_tokens
            self._metrics.cached_tokens += output.cached_tokens
        elif new_tokens:
            self._metrics.inter_token_latency.observe((now - self._last_token_at) / new_tokens, new_tokens)
        if new_tokens:
            self._last_token_at = now
        self._tokens += new_tokens
        self._metrics.generation_tokens += new_tokens
        if output.last:
            why = "error" if output.error is not None else str(output.finish)
            self._metrics.finished["abort" if why == "cancelled" else why] += 1
            self._metrics.request_latency.observe(now - self._started_at)
