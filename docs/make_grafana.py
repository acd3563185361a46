"""Write docs/grafana.json, a Grafana dashboard over what gateway and built-in workers tell Prometheus.

Run: python docs/make_grafana.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("grafana.json")
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT = 24, 8
_RATE = "[$__rate_interval]"
G = "llmlaunch_gateway_"
_HERE = 'job=~"$job"'
_MODEL = f'{_HERE},model=~"$model"'
_WORKER = f'{_HERE},model_name=~"$model"'


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    about: str
    unit: str
    """One of Grafana's units: s, short, reqps, bytes, percentunit …"""
    series: tuple[tuple[str, str], ...]
    """PromQL and the legend of its series."""
    stacked: bool = False


def _quantiles(name: str, where: str, by: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({q}, sum by (le, {by}) (rate({name}_bucket{{{where}}}{_RATE})))", f"p{q * 100:g} {{{{{by}}}}}")
        for q in (0.5, 0.95)
    )  # fmt: skip


_SECTIONS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Requests",
        (
            Panel("Requests by status", "Finished requests; 499: the client left.", "reqps",
                  ((f"sum by (status) (rate({G}requests_total{{{_MODEL}}}{_RATE}))", "{{status}}"),), stacked=True),
            Panel("Requests by model", "All paths and statuses.", "reqps",
                  ((f"sum by (model) (rate({G}requests_total{{{_MODEL}}}{_RATE}))", "{{model}}"),), stacked=True),
            Panel("Share of failures", "5xx among all answers.", "percentunit",
                  ((f'sum by (model) (rate({G}requests_total{{{_MODEL},status=~"5.."}}{_RATE}))'
                    f" / sum by (model) (rate({G}requests_total{{{_MODEL}}}{_RATE}))", "{{model}}"),)),
            Panel("Requests by key", "By the name of the API key.", "reqps",
                  ((f"sum by (key) (rate({G}requests_total{{{_MODEL}}}{_RATE}))", "{{key}}"),), stacked=True),
        ),
    ),
    (
        "Latency",
        (
            Panel("Time to the first byte", "From the request's head to the first byte of its answer.", "s",
                  _quantiles(f"{G}time_to_first_byte_seconds", _MODEL, "model")),
            Panel("Duration", "From the request's head to the last byte.", "s",
                  _quantiles(f"{G}request_duration_seconds", _MODEL, "model")),
        ),
    ),
    (
        "Tokens",
        (
            Panel("Tokens by model", "As the usage of answers reports them.", "short",
                  ((f"sum by (model) (rate({G}prompt_tokens_total{{{_MODEL}}}{_RATE}))", "prompts {{model}}"),
                   (f"sum by (model) (rate({G}completion_tokens_total{{{_MODEL}}}{_RATE}))", "answers {{model}}"))),
            Panel("Tokens by key", "Prompts and answers together.", "short",
                  ((f"sum by (key) (rate({G}prompt_tokens_total{{{_MODEL}}}{_RATE}))"
                    f" + sum by (key) (rate({G}completion_tokens_total{{{_MODEL}}}{_RATE}))", "{{key}}"),), stacked=True),
            Panel("Answers without usage", "Streams that were not asked to report it: their tokens are missing here.", "reqps",
                  ((f"sum by (model) (rate({G}usage_untold_total{{{_MODEL}}}{_RATE}))", "{{model}}"),)),
            Panel("Refused by limits", "Requests beyond the limits of their key.", "reqps",
                  ((f"sum by (key, limit) (rate({G}limited_total{{{_HERE}}}{_RATE}))", "{{key}} {{limit}}"),)),
        ),
    ),
    (
        "Replicas",
        (
            Panel("In flight", "Requests at each replica.", "short",
                  ((f"sum by (replica) ({G}in_flight{{{_HERE}}})", "{{replica}}"),), stacked=True),
            Panel("Waiting", "Requests that wait for a slot.", "short",
                  ((f"sum by (model) ({G}waiting{{{_MODEL}}})", "{{model}}"),), stacked=True),
            Panel("Breaker", "0: closed, 1: half open, 2: open (left out).", "short",
                  ((f"max by (replica) ({G}breaker_state{{{_HERE}}})", "{{replica}}"),)),
            Panel("Failures and retries", "Attempts that a replica failed, and attempts after the first.", "reqps",
                  ((f"sum by (replica, kind) (rate({G}upstream_errors_total{{{_HERE}}}{_RATE}))", "{{replica}} {{kind}}"),
                   (f"sum by (reason) (rate({G}retries_total{{{_HERE}}}{_RATE}))", "retry: {{reason}}"),
                   (f"sum({G}retry_budget{{{_HERE}}})", "retries left"))),
        ),
    ),
    (
        "Gateway",
        (
            Panel("Connections", "Of clients.", "short", ((f"sum({G}connections{{{_HERE}}})", "connections"),)),
            Panel("CPU", "Cores in use. A process has at most one: add processes when it is near.", "short",
                  ((f"sum(rate(process_cpu_seconds_total{{{_HERE}}}{_RATE}))", "cores"),
                   (f"sum({G}processes{{{_HERE}}})", "processes"))),
            Panel("Memory", "Resident; memory that processes share counts for each.", "bytes",
                  ((f"sum(process_resident_memory_bytes{{{_HERE}}})", "resident"),)),
            Panel("Controller and processes", "1: the controller answers. Revision of the routes, processes that were replaced.",
                  "short",
                  ((f"min({G}controller_up{{{_HERE}}})", "controller up"),
                   (f"max({G}routes_revision{{{_HERE}}})", "routes"),
                   (f"sum({G}process_exits_total{{{_HERE}}})", "replaced"))),
        ),
    ),
    (
        "Built-in workers (and vLLM)",
        (
            Panel("At work", "Requests that are worked on, and that wait in the worker.", "short",
                  ((f"sum by (model_name) (vllm:num_requests_running{{{_WORKER}}})", "running {{model_name}}"),
                   (f"sum by (model_name) (vllm:num_requests_waiting{{{_WORKER}}})", "waiting {{model_name}}"))),
            Panel("KV cache", "Share in use.", "percentunit",
                  ((f"max by (model_name, instance) (vllm:kv_cache_usage_perc{{{_WORKER}}})", "{{model_name}} {{instance}}"),)),
            Panel("Tokens", "Computed and written.", "short",
                  ((f"sum by (model_name) (rate(vllm:prompt_tokens_total{{{_WORKER}}}{_RATE}))", "prompts {{model_name}}"),
                   (f"sum by (model_name) (rate(vllm:generation_tokens_total{{{_WORKER}}}{_RATE}))", "answers {{model_name}}"))),
            Panel("Time to the next token", "Between two tokens of an answer.", "s",
                  _quantiles("vllm:inter_token_latency_seconds", _WORKER, "model_name")),
        ),
    ),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, section in _SECTIONS:
        place = {"x": 0, "y": y, "w": _WIDTH, "h": 1}
        panels.append({"type": "row", "title": title, "gridPos": place, "collapsed": False, "panels": []})
        y += 1
        width = _WIDTH // 2
        for at, panel in enumerate(section):
            place = {"x": at % 2 * width, "y": y + at // 2 * _HEIGHT, "w": width, "h": _HEIGHT}
            panels.append(_panel(panel, place))
        y += -(-len(section) // 2) * _HEIGHT
    for number, made in enumerate(panels, 1):
        made["id"] = number
    return {
        "title": "llmlaunch",
        "uid": "llmlaunch",
        "description": "One endpoint over many models: requests, latency, tokens, replicas.",
        "tags": ["llmlaunch"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), _choice("job", "Job"), _choice("model", "Model")]},
        "panels": panels,
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    custom = {
        "fillOpacity": 20 if panel.stacked else 0,
        "stacking": {"mode": "normal" if panel.stacked else "none"},
    }
    targets = [
        {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
        for at, (expr, legend) in enumerate(panel.series)
    ]
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _choice(name: str, label: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values({G}requests_total, {name})",
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def text() -> str:
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
