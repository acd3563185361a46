"""The gateway's metrics, and the page that Prometheus reads.

Kept by hand: a request changes a handful of numbers, and a client library would cost more per request than everything
else here together. Labels hold only paths and models that exist, so that invented names cannot fill the memory. The
numbers lie in :class:`SharedCounters`, which the other processes of the same gateway read, too.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from llmlaunch.gateway.multiprocess.shared_counters import Name, SharedCounters
from llmlaunch.gateway.observe.outcome import RequestOutcome

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
PREFIX = "llmlaunch_gateway_"
_BOUNDS = (*map(str, BUCKETS_S), "+Inf")
_ABSENT = math.nan
"""The value of a gauge that a process does not have."""


class MetricKind(Enum):
    """The types of Prometheus metrics that are used here."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """A metric with all its labels: name, type, help text and names of labels."""

    name: str
    kind: MetricKind
    text: str
    labels: tuple[str, ...] = ()
    over: Callable[[Sequence[float]], float] = math.fsum
    """Combines the values of all processes into one."""


_MODEL = ("path", "model")
FAMILIES = (
    MetricFamily(PREFIX + "requests_total", MetricKind.COUNTER, "Requests that ended; status 499: the client left.",
           ("path", "model", "replica", "key", "status")),
    MetricFamily(PREFIX + "prompt_tokens_total", MetricKind.COUNTER, "Tokens of prompts, as answers report them.", ("model", "key")),
    MetricFamily(PREFIX + "completion_tokens_total", MetricKind.COUNTER, "Tokens of answers, as answers report them.", ("model", "key")),
    MetricFamily(PREFIX + "usage_untold_total", MetricKind.COUNTER,
           "Answers without usage: streams report it only if they are asked to.", ("model",)),
    MetricFamily(PREFIX + "limited_total", MetricKind.COUNTER, "Requests beyond the limits of their key.", ("key", "limit")),
    MetricFamily(PREFIX + "wrong_keys_total", MetricKind.COUNTER,
           "Requests with a wrong API key or none; `answer` says whether the answer was delayed.", ("answer",)),
    MetricFamily(PREFIX + "request_duration_seconds", MetricKind.HISTOGRAM, "From the request's head to the last byte.", _MODEL),
    MetricFamily(PREFIX + "time_to_first_byte_seconds", MetricKind.HISTOGRAM, "From the request's head to the first content.", _MODEL),
    MetricFamily(PREFIX + "retries_total", MetricKind.COUNTER, "Attempts after the first.", ("reason",)),
    MetricFamily(PREFIX + "upstream_errors_total", MetricKind.COUNTER, "Attempts that a replica failed.", ("replica", "kind")),
    MetricFamily(PREFIX + "in_flight", MetricKind.GAUGE, "Requests at a replica now.", ("replica",)),
    MetricFamily(PREFIX + "waiting", MetricKind.GAUGE, "Requests that wait for a slot.", ("model",)),
    MetricFamily(PREFIX + "breaker_state", MetricKind.GAUGE,
           "Circuit breaker. 0: closed, 1: half open (one request probes), 2: open (left out).", ("replica",), over=max),
    MetricFamily(PREFIX + "retry_budget", MetricKind.GAUGE, "Retries that may still be made now."),
    MetricFamily(PREFIX + "connections", MetricKind.GAUGE, "Client connections."),
    MetricFamily(PREFIX + "body_bytes", MetricKind.GAUGE, "Bytes of request bodies over 16 KiB that are held."),
    MetricFamily(PREFIX + "controller_up", MetricKind.GAUGE, "1: the controller answered last time; 0: it did not.", over=min),
    MetricFamily(PREFIX + "routes_revision", MetricKind.GAUGE, "Revision of the route table in use.", over=min),
    MetricFamily(PREFIX + "processes", MetricKind.GAUGE, "Gateway processes that serve."),
    MetricFamily(PREFIX + "process_exits_total", MetricKind.COUNTER, "Gateway processes that ended unasked and were replaced."),
    MetricFamily(PREFIX + "process_hangs_total", MetricKind.COUNTER, "Gateway processes that hung, and were killed and replaced."),
    MetricFamily("process_cpu_seconds_total", MetricKind.COUNTER, "User and system CPU time."),
    MetricFamily("process_resident_memory_bytes", MetricKind.GAUGE, "Resident memory; memory that processes share counts for each."),
)  # fmt: skip
_BY_NAME = {family.name: family for family in FAMILIES}


@dataclass(frozen=True, slots=True)
class Gauges:
    """Values of one process at this moment that are not counted here."""

    in_flight: Mapping[str, int]
    """By replica."""
    waiting: Mapping[str, int]
    """By model."""
    breakers: Mapping[str, int]
    """By replica: ``replica_health.Breaker``."""
    retries_left: float
    connections: int
    controller_up: bool
    routes_revision: int
    cpu_seconds: float
    resident_bytes: int
    body_bytes: int = 0
    """Bytes held for the bodies of requests (``http1.body_memory``)."""


class GatewayMetrics:
    """The counters of one process."""

    def __init__(self, counters: SharedCounters) -> None:
        self._counters = counters
        self._values = counters.values
        self._requests: dict[tuple[str, str, str, str, int], int] = {}
        self._durations: dict[tuple[str, str], int] = {}
        self._first_bytes: dict[tuple[str, str], int] = {}
        self._tokens: dict[tuple[str, str], tuple[int, int]] = {}
        """Indices of the counters for prompt and completion tokens, by model and key."""
        self._others: dict[Name, int] = {}
        """Indices by family and labels."""
        for family in ("process_exits_total", "process_hangs_total"):
            self._place(PREFIX + family, ())
        # The process that this one replaces may have used the counters.
        self._cpu_before = self._values[self._place("process_cpu_seconds_total", ())]

    def ended(self, outcome: RequestOutcome) -> None:
        """Count a request that has ended, its duration and its tokens."""
        values = self._values
        request, status, seconds = outcome.request, outcome.status, outcome.duration_s
        path, model, key = request.endpoint.label, outcome.counted_model, request.api_key.name
        labels = (path, model, outcome.replica, key, status)
        at = self._requests.get(labels)
        if at is None:
            named = (*labels[:4], str(status))
            at = self._requests[labels] = self._place(PREFIX + "requests_total", named)
        values[at] += 1.0
        at = self._durations.get((path, model))
        if at is None:
            at = self._histogram(self._durations, "request_duration_seconds", (path, model))
        values[at + bisect_left(BUCKETS_S, seconds)] += 1.0
        values[at + len(_BOUNDS)] += seconds
        if status == 200 and request.endpoint.has_usage:
            self._used(model, key, outcome.tokens)

    def first_byte(self, path: str, model: str, seconds: float) -> None:
        """Count the time from a request's head to the first content of its answer."""
        at = self._first_bytes.get((path, model))
        if at is None:
            at = self._histogram(self._first_bytes, "time_to_first_byte_seconds", (path, model))
        self._values[at + bisect_left(BUCKETS_S, seconds)] += 1.0
        self._values[at + len(_BOUNDS)] += seconds

    def _used(self, model: str, key: str, tokens: tuple[int, int] | None) -> None:
        """``tokens``: those of the prompt and of the completion; None if the answer did not report its usage."""
        if tokens is None:
            self._count("usage_untold_total", model)
            return
        places = self._tokens.get((model, key))
        if places is None:
            families = PREFIX + "prompt_tokens_total", PREFIX + "completion_tokens_total"
            prompt, completion = (self._place(family, (model, key)) for family in families)
            places = self._tokens[(model, key)] = prompt, completion
        self._values[places[0]] += tokens[0]
        self._values[places[1]] += tokens[1]

    def was_limited(self, key: str, limit: str) -> None:
        """Count a request that was refused because of a ``limit`` of its ``key``."""
        self._count("limited_total", key, limit)

    def wrong_key(self, answer: str) -> None:
        """Count a request with a wrong API key; ``answer`` is a value of ``WrongKeyAction``."""
        self._count("wrong_keys_total", answer)

    def retried(self, reason: str) -> None:
        """Count a retry; ``reason`` is a value of ``FailureKind``, or "stale" for a pooled connection that was closed."""
        self._count("retries_total", reason)

    def upstream_error(self, replica: str, kind: str) -> None:
        """Count an attempt that failed at ``replica``; ``kind`` is a value of ``FailureKind``."""
        self._count("upstream_errors_total", replica, kind)

    def publish(self, gauges: Gauges) -> None:
        """Write the ``gauges`` for all processes to read; those that no longer exist are withdrawn."""
        now: dict[Name, float] = {
            (PREFIX + "retry_budget",): gauges.retries_left,
            (PREFIX + "connections",): gauges.connections,
            (PREFIX + "body_bytes",): gauges.body_bytes,
            (PREFIX + "controller_up",): int(gauges.controller_up),
            (PREFIX + "routes_revision",): max(0, gauges.routes_revision),
            (PREFIX + "processes",): 1,
            ("process_resident_memory_bytes",): gauges.resident_bytes,
        }
        for name, values in (
            ("in_flight", gauges.in_flight),
            ("waiting", gauges.waiting),
            ("breaker_state", gauges.breakers),
        ):
            now.update(((PREFIX + name, label), value) for label, value in values.items())
        withdraw(self._counters, keep=now)
        for (family, *labels), value in now.items():
            self._values[self._place(family, tuple(labels))] = value
        self._values[self._place("process_cpu_seconds_total", ())] = self._cpu_before + gauges.cpu_seconds

    def _count(self, name: str, *labels: str) -> None:
        key = (name, *labels)
        at = self._others.get(key)
        if at is None:
            at = self._others[key] = self._place(PREFIX + name, labels)
        self._values[at] += 1.0

    def _histogram(self, family: dict[tuple[str, str], int], name: str, key: tuple[str, str]) -> int:
        """Allocate one count for each bound, and the sum; return the index of the first."""
        at = family[key] = self._place(PREFIX + name, key, len(_BOUNDS) + 1)
        return at

    def _place(self, family: str, labels: tuple[str, ...], size: int = 1) -> int:
        return self._counters.place((family, *labels), size)


def withdraw(counters: SharedCounters, keep: Iterable[Name] = ()) -> None:
    """Remove the gauges that are not in ``keep``; by default all of them, as when their process has ended."""
    kept = set(keep)
    for name, (at, _) in counters.places().items():
        if name not in kept and _BY_NAME[name[0]].kind is MetricKind.GAUGE:
            counters.values[at] = _ABSENT


def exited(counters: SharedCounters) -> None:
    """Count that the process of ``counters`` ended unexpectedly, and remove its gauges."""
    withdraw(counters)
    counters.values[counters.place((PREFIX + "process_exits_total",))] += 1.0


def hung(counters: SharedCounters) -> None:
    """Count that the process of ``counters`` hung and is being killed."""
    counters.values[counters.place((PREFIX + "process_hangs_total",))] += 1.0


def render(processes: Sequence[SharedCounters]) -> bytes:
    """The whole page in Prometheus' text format, with each number combined over all ``processes``."""
    found: dict[str, dict[Name, list[Sequence[float]]]] = {family.name: {} for family in FAMILIES}
    for counters in processes:
        for (name, *labels), (at, size) in counters.places().items():
            values = counters.values[at : at + size].tolist()
            if not math.isnan(values[0]):
                found[name].setdefault(tuple(labels), []).append(values)
    lines: list[str] = []
    for family in FAMILIES:
        lines += [f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.kind.value}"]
        of_family = found[family.name]
        for labels_of in sorted(of_family):
            rows = of_family[labels_of]
            merged = [family.over(column) for column in zip(*rows, strict=True)]
            if family.kind is MetricKind.HISTOGRAM:
                lines += _histogram_lines(family, labels_of, merged)
            else:
                lines.append(f"{family.name}{_braces(family.labels, labels_of)} {_number(merged[0])}")
    return ("\n".join(lines) + "\n").encode()


def _histogram_lines(family: MetricFamily, labels: Name, merged: Sequence[float]) -> list[str]:
    *counts, total = merged
    lines, seen = [], 0
    for bound, count in zip(_BOUNDS, counts, strict=True):
        seen += int(count)
        lines.append(f"{family.name}_bucket{_braces((*family.labels, 'le'), (*labels, bound))} {seen}")
    braces = _braces(family.labels, labels)
    return [*lines, f"{family.name}_sum{braces} {total}", f"{family.name}_count{braces} {seen}"]


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _braces(names: Iterable[str], values: Iterable[str]) -> str:
    pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
