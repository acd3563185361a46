"""What the worker tells Prometheus: vLLM's metric names, where the meaning is the same."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

from llmlaunch.worker.engine.types import GenerationRequest, Load, Piece

FIRST_TOKEN_S = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.8, 1.5, 3.0, 6.0, 12.0, 30.0, 60.0)
NEXT_TOKEN_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.4, 0.8, 1.5, 3.0)
WHOLE_S = (0.1, 0.3, 0.8, 1.5, 3.0, 6.0, 12.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def lines(self, name: str, labels: str) -> Iterator[str]:
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_sum{{{labels}}} {self._sum:.6f}"
        yield f"{name}_count{{{labels}}} {total}"


class Metrics:
    """Counts of one worker. Used in the event loop alone."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generation_tokens = 0
        self.embedded_tokens = 0
        self.finished: Counter[str] = Counter()
        self.first_token = Histogram(FIRST_TOKEN_S)
        self.next_token = Histogram(NEXT_TOKEN_S)
        self.whole = Histogram(WHOLE_S)

    def timer(self, request: GenerationRequest) -> Timer:
        return Timer(self, len(request.prompt))

    def text(self, model: str, load: Load) -> str:
        """Everything in Prometheus' text format."""
        escaped = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        labels = f'model_name="{escaped}"'
        lines: list[str] = []

        def add(name: str, kind: str, help_text: str, value: float) -> None:
            lines.extend(
                (f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value:g}")
            )

        add("vllm:num_requests_running", "gauge", "Requests that share the model now.", load.running)
        add("vllm:num_requests_waiting", "gauge", "Requests that wait for a place.", load.waiting)
        add("vllm:kv_cache_usage_perc", "gauge", "Share of the KV cache in use, 0 to 1.", load.kv_used)
        add(
            "vllm:num_preemptions_total",
            "counter",
            "Requests that made room and waited again.",
            load.sent_back,
        )
        add("vllm:prompt_tokens_total", "counter", "Tokens of prompts.", self.prompt_tokens)
        add("vllm:prompt_tokens_cached_total", "counter", "Of these, not computed again.", self.cached_tokens)
        add("vllm:generation_tokens_total", "counter", "Tokens of answers.", self.generation_tokens)
        add("llmlaunch:embedded_tokens_total", "counter", "Tokens embedded.", self.embedded_tokens)
        name = "vllm:request_success_total"
        lines += [f"# HELP {name} Requests that are over, by reason.", f"# TYPE {name} counter"]
        lines += [
            f'{name}{{{labels},finished_reason="{why}"}} {n}' for why, n in sorted(self.finished.items())
        ]
        for name, histogram in (
            ("vllm:time_to_first_token_seconds", self.first_token),
            ("vllm:inter_token_latency_seconds", self.next_token),
            ("vllm:e2e_request_latency_seconds", self.whole),
        ):
            lines += [f"# HELP {name} Seconds.", f"# TYPE {name} histogram", *histogram.lines(name, labels)]
        return "\n".join(lines) + "\n"


class Timer:
    """Follows one request from its arrival."""

    def __init__(self, metrics: Metrics, prompt: int) -> None:
        self._metrics = metrics
        self._prompt = prompt
        self._began = time.perf_counter()
        self._last = 0.0
        self._tokens = 0

    def take(self, piece: Piece) -> None:
        now = time.perf_counter()
        fresh = max(0, piece.completion_tokens - self._tokens)
        if fresh and not self._tokens:
            self._metrics.first_token.observe(now - self._began)
            self._metrics.prompt_tokens += self._prompt
            self._metrics.cached_tokens += piece.cached_tokens
        elif fresh:
            self._metrics.next_token.observe((now - self._last) / fresh, fresh)
        if fresh:
            self._last = now
        self._tokens += fresh
        self._metrics.generation_tokens += fresh
        if piece.last:
            why = "error" if piece.error is not None else str(piece.finish)
            self._metrics.finished["abort" if why == "cancelled" else why] += 1
            self._metrics.whole.observe(now - self._began)
