"""Counters and histograms in Prometheus' text form (exposition format 0.0.4). No I/O; times come in as arguments.

A registry of our own: the usual client library costs more per request than everything else here together. Labels hold
only paths and models that exist, so nobody can fill memory by asking for names.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
PREFIX = "llmlaunch_gateway_"

Labels = tuple[str, ...]


@dataclass(slots=True)
class Histogram:
    """Observations in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Metrics:
    requests: dict[tuple[str, str, str, str, int], int] = field(default_factory=dict)
    """(path, model, replica, key, status) → requests that ended. 499: the client left."""
    prompt_tokens: dict[Labels, int] = field(default_factory=dict)
    """(model, key), as the usage of answers told."""
    completion_tokens: dict[Labels, int] = field(default_factory=dict)
    untold: dict[Labels, int] = field(default_factory=dict)
    """(model,) → answers that should have told their usage and did not."""
    limited: dict[Labels, int] = field(default_factory=dict)
    """(key, limit) → requests that the key's limits refused."""
    durations: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    first_bytes: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    retries: dict[Labels, int] = field(default_factory=dict)
    """(reason,)"""
    upstream_errors: dict[Labels, int] = field(default_factory=dict)
    """(replica, kind)"""

    def ended(self, path: str, model: str, replica: str, key: str, status: int, seconds: float) -> None:
        """``key`` is the name of an API key; ``replica`` is empty when none answered."""
        labels = (path, model, replica, key, status)
        self.requests[labels] = self.requests.get(labels, 0) + 1
        _histogram(self.durations, (path, model)).observe(seconds)

    def used(self, model: str, key: str, tokens: tuple[int, int] | None) -> None:
        if tokens is None:
            self.untold[(model,)] = self.untold.get((model,), 0) + 1
            return
        labels = (model, key)
        self.prompt_tokens[labels] = self.prompt_tokens.get(labels, 0) + tokens[0]
        self.completion_tokens[labels] = self.completion_tokens.get(labels, 0) + tokens[1]

    def was_limited(self, key: str, limit: str) -> None:
        self.limited[(key, limit)] = self.limited.get((key, limit), 0) + 1

    def first_byte(self, path: str, model: str, seconds: float) -> None:
        _histogram(self.first_bytes, (path, model)).observe(seconds)

    def retried(self, reason: str) -> None:
        self.retries[(reason,)] = self.retries.get((reason,), 0) + 1

    def upstream_error(self, replica: str, kind: str) -> None:
        key = (replica, kind)
        self.upstream_errors[key] = self.upstream_errors.get(key, 0) + 1


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is counted elsewhere, at the moment of asking."""

    in_flight: Mapping[str, int]
    """By replica."""
    waiting: Mapping[str, int]
    """By model."""
    breakers: Mapping[str, int]
    """By replica: ``load.Breaker``."""
    retries_left: float
    connections: int
    controller_up: bool
    routes_revision: int
    cpu_seconds: float
    resident_bytes: int


def _histogram(family: dict[tuple[str, str], Histogram], key: tuple[str, str]) -> Histogram:
    found = family.get(key)
    if found is None:
        found = family[key] = Histogram()
    return found


def render(metrics: Metrics, gauges: Gauges) -> bytes:
    """The whole page."""
    lines: list[str] = []
    by_status = {(*labels[:4], str(labels[4])): n for labels, n in metrics.requests.items()}
    _family(lines, "requests_total", "counter", "Requests that ended; status 499: the client left.",
            ("path", "model", "replica", "key", "status"), by_status)  # fmt: skip
    for name, text, counts in (
        ("prompt_tokens_total", "As answers told.", metrics.prompt_tokens),
        ("completion_tokens_total", "As answers told.", metrics.completion_tokens),
    ):
        _family(lines, name, "counter", text, ("model", "key"), counts)
    _family(lines, "usage_untold_total", "counter", "Answers that told no usage, as streams do unless they are asked to.",
            ("model",), metrics.untold)  # fmt: skip
    _family(
        lines,
        "limited_total",
        "counter",
        "Requests beyond the limits of their key.",
        ("key", "limit"),
        metrics.limited,
    )
    _histograms(
        lines, "request_duration_seconds", "From the request's head to the last byte.", metrics.durations
    )
    _histograms(
        lines, "time_to_first_byte_seconds", "From the request's head to the first byte.", metrics.first_bytes
    )
    _family(lines, "retries_total", "counter", "Attempts after the first.", ("reason",), metrics.retries)
    _family(lines, "upstream_errors_total", "counter", "Attempts that a replica failed.", ("replica", "kind"),
            metrics.upstream_errors)  # fmt: skip
    _family(
        lines, "in_flight", "gauge", "Requests at a replica now.", ("replica",), _single(gauges.in_flight)
    )
    _family(lines, "waiting", "gauge", "Requests that wait for a slot.", ("model",), _single(gauges.waiting))
    _family(lines, "breaker_state", "gauge", "0: closed, 1: half open (one request probes), 2: open (left out).",
            ("replica",), _single(gauges.breakers))  # fmt: skip
    _family(lines, "retry_budget", "gauge", "Retries that are left now.", (), {(): gauges.retries_left})
    _family(lines, "connections", "gauge", "Client connections.", (), {(): gauges.connections})
    _family(lines, "controller_up", "gauge", "1: its last answer came.", (), {(): int(gauges.controller_up)})
    _family(
        lines, "routes_revision", "gauge", "Of the table in use.", (), {(): max(0, gauges.routes_revision)}
    )
    for name, kind, text, value in (
        ("process_cpu_seconds_total", "counter", "User and system CPU time.", gauges.cpu_seconds),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", gauges.resident_bytes),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value}"]
    return ("\n".join(lines) + "\n").encode()


def _single(values: Mapping[str, int]) -> dict[Labels, int]:
    return {(key,): value for key, value in values.items()}


def _family(
    lines: list[str], name: str, kind: str, text: str, labels: Labels, values: Mapping[Any, float]
) -> None:
    lines += [f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} {kind}"]
    lines += [f"{PREFIX}{name}{_braces(labels, key)} {values[key]}" for key in sorted(values)]


def _histograms(lines: list[str], name: str, text: str, family: Mapping[tuple[str, str], Histogram]) -> None:
    full = PREFIX + name
    lines += [f"# HELP {full} {text}", f"# TYPE {full} histogram"]
    for key in sorted(family):
        histogram, seen = family[key], 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), histogram.counts, strict=True):
            seen += count
            lines.append(f"{full}_bucket{_braces(('path', 'model', 'le'), (*key, bound))} {seen}")
        lines.append(f"{full}_sum{_braces(('path', 'model'), key)} {histogram.total}")
        lines.append(f"{full}_count{_braces(('path', 'model'), key)} {seen}")


def _braces(names: Iterable[str], values: Iterable[str]) -> str:
    pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
