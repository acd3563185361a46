"""Make docs/reference/metrics.md from what the gateway counts.

Run: ``make docs``. A test asserts that the file is what this prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from llmlaunch.gateway.observe.metrics import BUCKETS_S, FAMILIES

ROOT = Path(__file__).parents[1]
REFERENCE = "docs/reference/metrics.md"

HEAD = """\
# Metrics

<!-- Made by docs/make_metrics.py from the code: change that, then run `make docs`. -->

`GET /metrics` speaks the Prometheus text format on the gateway and on built-in workers.
[Monitoring](../guides/monitoring.md) shows how to scrape them and has a Grafana dashboard.

## The gateway

"""

TAIL = f"""
Histograms have buckets at {", ".join(f"{bound:g}" for bound in BUCKETS_S)} seconds. `key` is the name of an API key, never the key
itself. `path` and `model` hold only paths and models that exist, so no client can create series by asking for names.

## Workers

Built-in workers use vLLM's names, which [their page](worker.md#metrics) lists. Engines that are started for you keep their own:

| engine | requests at work | requests waiting | share of the KV cache in use |
|---|---|---|---|
| `transformers`, `vllm` | `vllm:num_requests_running` | `vllm:num_requests_waiting` | `vllm:kv_cache_usage_perc` |
| `sglang` | `sglang:num_running_reqs` | `sglang:num_queue_reqs` | `sglang:token_usage` |
| `llamacpp` | `llamacpp:requests_processing` | `llamacpp:requests_deferred` | – |
"""


def page() -> str:
    """The whole page."""
    return "".join([HEAD, *_families(), TAIL])


def _families() -> Iterator[str]:
    yield "| metric | type | labels | meaning |\n|---|---|---|---|\n"
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"| `{family.name}` | {family.kind.value} | {labels} | {family.text} |\n"


def write(root: Path) -> None:
    (root / REFERENCE).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write(ROOT)
    sys.stdout.write(f"{REFERENCE}\n")
