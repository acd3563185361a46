"""Questions to the table of workers: which names are served, where, and who gets the next request. Pure."""

from __future__ import annotations

from dataclasses import replace

from llmlaunch.common.dispatch_methods import DispatchMethod
from llmlaunch.common.heartbeat import REPORT_LEASE_S
from llmlaunch.controller.dispatch import Candidate, choose
from llmlaunch.controller.table import Table, offered
from llmlaunch.controller.wire import ReplicaRoute, RoutesResponse

DRAIN_NOTICE_S = 1.5
"""Seconds after which every gateway has learned of a drain and reported again."""


def in_flight(table: Table, name: str, now: float) -> int:
    """Requests of all gateways that the worker has in flight.

    Just after a drain began, a busy gateway counts as at least one request until it has reported again: it may have sent one
    before it learned of the drain.
    """
    fresh = [r for r in table.reports.values() if now - r.at <= REPORT_LEASE_S]
    total = sum(r.in_flight.get(name, 0) for r in fresh)
    worker = table.workers.get(name)
    since = worker.draining_since if worker else None
    if total == 0 and since is not None and now - since < DRAIN_NOTICE_S:
        return sum(1 for r in fresh if r.at < since and r.in_flight)
    return total


def assign(
    table: Table, model: str, dispatch: DispatchMethod, draw: float, now: float, turn: int = 0
) -> tuple[Table, str]:
    """The address of a worker for one request for ``model``, "" when none serves it; ``draw`` and ``turn`` as in dispatch.

    The request counts in that worker's queue until its next heartbeat, as in FastChat: not all requests of a burst between
    two heartbeats shall go to the same worker.
    """
    candidates = [
        Candidate(w.name, w.speed, max(w.queue_length, in_flight(table, w.name, now)))
        for w in table.workers.values()
        if model in offered(table, w) and w.draining_since is None
    ]
    if not candidates:
        return table, ""
    name = choose(dispatch, candidates, draw, turn).key
    worker = table.workers[name]
    counted = {**table.workers, name: replace(worker, queue_length=worker.queue_length + 1)}
    return replace(table, workers=counted), name


def models(table: Table, *, multimodal: bool | None = None) -> list[str]:
    """Names that are served now, sorted; only (not) multimodal ones if ``multimodal`` is true (false)."""
    return sorted(
        {
            name
            for worker in table.workers.values()
            if worker.draining_since is None and multimodal in (None, worker.multimodal)
            for name in offered(table, worker)
        }
    )


def routes(table: Table, epoch: str, dispatch: DispatchMethod) -> RoutesResponse:
    """The table as gateways get it, in a stable order."""
    replicas = [
        ReplicaRoute(
            worker_name=w.name,
            model_names=list(names),
            speed=w.speed,
            queue_length=w.queue_length,
            draining=w.draining_since is not None,
            component=w.component,
            engine=w.engine,
            engine_model=w.engine_model,
            kind=w.kind,
            max_concurrency=w.max_concurrency,
            request_timeout_s=w.request_timeout_s,
            max_model_len=w.max_model_len,
            keyed=w.keyed,
        )
        for _, w in sorted(table.workers.items())
        if (names := offered(table, w))
    ]
    return RoutesResponse(
        epoch=epoch,
        rev=table.rev,
        settled=table.settled,
        dispatch=dispatch,
        replicas=replicas,
        expected=list(table.expected),
    )
