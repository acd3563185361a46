"""What a worker tells Prometheus, read back by Prometheus' own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from llmlaunch.worker.metrics import FIRST_TOKEN_BOUNDS_S, WorkerMetrics
from llmlaunch.worker.types import EngineLoad


def samples(metrics: WorkerMetrics, model: str = "m") -> dict[tuple[str, str], float]:
    """(name, value of the label that is not the model's) → value."""
    found = {}
    for family in text_string_to_metric_families(metrics.text(model, EngineLoad(1, 2, 0.25, 3))):
        for sample in family.samples:
            assert sample.labels.pop("model_name") == model
            found[sample.name, *sample.labels.values() or [""]] = sample.value
    return found


def test_counts_stand_under_their_names() -> None:
    metrics = WorkerMetrics()
    metrics.prompt_tokens, metrics.generation_tokens, metrics.embedded_tokens = 7, 11, 13
    metrics.finished["stop"] += 2
    metrics.finished["abort"] += 1
    found = samples(metrics)
    assert found["vllm:num_requests_running", ""] == 1
    assert found["vllm:num_requests_waiting", ""] == 2
    assert found["vllm:kv_cache_usage_perc", ""] == 0.25
    assert found["vllm:num_preemptions_total", ""] == 3
    assert found["vllm:prompt_tokens_total", ""] == 7
    assert found["vllm:generation_tokens_total", ""] == 11
    assert found["llmlaunch:embedded_tokens_total", ""] == 13
    assert found["vllm:request_success_total", "stop"] == 2
    assert found["vllm:request_success_total", "abort"] == 1


def test_a_histogram_counts_what_is_at_most_as_large() -> None:
    metrics = WorkerMetrics()
    metrics.time_to_first_token.observe(FIRST_TOKEN_BOUNDS_S[1])
    metrics.time_to_first_token.observe(1000.0)
    metrics.inter_token_latency.observe(0.004, 3)
    found = samples(metrics)
    first = "vllm:time_to_first_token_seconds"
    assert [found[f"{first}_bucket", le] for le in ("0.01", "0.02", "60.0", "+Inf")] == [0, 1, 1, 2]
    assert (found[f"{first}_count", ""], found[f"{first}_sum", ""]) == (2, 1000.02)
    assert found["vllm:inter_token_latency_seconds_bucket", "0.005"] == 3


def test_a_name_may_hold_any_character() -> None:
    name = 'a"b\\c\nd'
    assert samples(WorkerMetrics(), name)["vllm:num_requests_running", ""] == 1
