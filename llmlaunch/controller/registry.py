"""How messages and time change the table of workers. Pure: ``now``, in seconds of any clock, is an argument.

::

               register                        drain
    (unknown) ──────────► SERVING ─────────────────────► DRAINING ──┐
        ▲                  │  ▲ ▲                            │      │ register: a new life
        │                  │  │ └────────────────────────────┼──────┘ at the same address
        │                  │  └─ heartbeat, every 5 s        │
        └──────────────────┴─────────────────────────────────┘
           unregister, or no heartbeat for its lease (a verified worker: and failed probes, too)

Every function returns a new table; ``rev`` grows whenever something has changed that gateways route by.

Where there is a token (a ``guarded`` table), the names that the manifest promises are reserved: a worker that registered
without a token is listed for its other names only, and for none before the supervisor has sent the reserved ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from llmlaunch.common.heartbeat import REPORT_LEASE_S
from llmlaunch.controller.table import RegisteredWorker, Report, Table, lease_over, restrict, without
from llmlaunch.controller.wire import WorkerStatus

PAUSE_S = 5.0
"""A longer pause between two ticks means that the controller itself was suspended, and could receive no heartbeat."""
MAX_FAILED_PROBES = 3
"""Failed probes in a row after which a verified worker without heartbeats is removed."""


def rejection_reason(table: Table, name: str, model_names: Sequence[str], *, trusted: bool) -> str:
    """Why a caller may not speak for the worker ``name``, or register it for ``model_names``; empty if it may."""
    if trusted:
        return ""
    old = table.workers.get(name)
    if old is not None and old.trusted:
        return f"{name} was registered with a token; changing it needs a token, too"
    own = [n for n in model_names if table.guarded and n in table.expected]
    if own:
        names = ", ".join(map(repr, own))
        return f"{names} is a name in this deployment's manifest; a worker without a token needs another name"
    return ""


def register(table: Table, worker: RegisteredWorker) -> Table:
    """Add ``worker``. One at the same address is replaced, and no longer drained."""
    old = table.workers.get(worker.name)
    workers = {**table.workers, worker.name: worker}
    if old is not None and replace(old, last_seen=worker.last_seen) == worker:
        return replace(table, workers=workers)
    return replace(table, workers=workers, rev=table.rev + 1)


def heartbeat(table: Table, name: str, queue_length: int, now: float) -> tuple[Table, bool]:
    """Renew the worker's lease. False: it is not in the table and has to register."""
    worker = table.workers.get(name)
    if worker is None:
        return table, False
    fresh = replace(worker, last_seen=now, queue_length=queue_length, failed_probes=0)
    changed = table.loads_changed or queue_length != worker.queue_length
    return replace(table, workers={**table.workers, name: fresh}, loads_changed=changed), True


def late_workers(table: Table, now: float) -> list[RegisteredWorker]:
    """Verified workers whose lease is over.

    Their supervisor sends their heartbeats, and may be suspended or blocked by a disk while they are healthy. So each has to
    be probed before it is removed.
    """
    return [w for w in table.workers.values() if w.verified and lease_over(w, now)]


def probe_succeeded(table: Table, probed: RegisteredWorker) -> Table:
    """``probed``, a late worker, is healthy."""
    if table.workers.get(probed.name) != probed or not probed.failed_probes:
        return table
    return replace(table, workers={**table.workers, probed.name: replace(probed, failed_probes=0)})


def probe_failed(table: Table, probed: RegisteredWorker, *, gone: bool) -> Table:
    """A probe of the late worker ``probed`` failed; ``gone``: it cannot succeed any more, so the worker is removed at once.

    Nothing happens to a worker that was heard from meanwhile.
    """
    if table.workers.get(probed.name) != probed:
        return table
    if gone or probed.failed_probes + 1 >= MAX_FAILED_PROBES:
        return without(table, {probed.name})
    failed = replace(probed, failed_probes=probed.failed_probes + 1)
    return replace(table, workers={**table.workers, probed.name: failed})


def refresh(table: Table, name: str, status: WorkerStatus) -> Table:
    """Take over the status that the worker reports; nothing happens when it has been removed meanwhile."""
    worker = table.workers.get(name)
    if worker is None:
        return table
    names = restrict(status.model_names, worker.allowed_names)
    fresh = replace(worker, model_names=names, speed=status.speed, queue_length=status.queue_length)
    return register(table, fresh)


def unregister(table: Table, name: str) -> tuple[Table, bool]:
    """Remove the worker. False: it was not listed."""
    if name not in table.workers:
        return table, False
    return without(table, {name}), True


def drain(table: Table, name: str, now: float) -> tuple[Table, bool]:
    """Send the worker no new requests; those that it has go on. False: it is not listed."""
    worker = table.workers.get(name)
    if worker is None:
        return table, False
    if worker.draining_since is not None:
        return table, True
    workers = {**table.workers, name: replace(worker, draining_since=now)}
    return replace(table, workers=workers, rev=table.rev + 1), True


def expect(table: Table, names: Sequence[str]) -> Table:
    """Set the served names that the manifest promises."""
    expected = tuple(dict.fromkeys(names))
    if expected == table.expected and table.names_known:
        return table
    return replace(table, expected=expected, names_known=True, rev=table.rev + 1)


def report(table: Table, gateway: str, in_flight: Mapping[str, int], now: float) -> Table:
    """Set the requests that ``gateway`` has in flight, by worker name; its last report is replaced."""
    busy = {name: count for name, count in in_flight.items() if count > 0}
    return replace(table, reports={**table.reports, gateway: Report(now, busy)})


def tick(table: Table, now: float) -> Table:
    """Let time pass until ``now``: leases expire, old reports are dropped, the controller settles, queue lengths are published."""
    pause = now - table.ticked_at
    workers = table.workers
    if pause > PAUSE_S:
        workers = {
            name: replace(worker, last_seen=min(now, worker.last_seen + pause))
            for name, worker in workers.items()
        }
    reports = {g: r for g, r in table.reports.items() if now - r.at <= REPORT_LEASE_S}
    table = replace(table, workers=workers, reports=reports, ticked_at=now)
    silent = {n for n, w in workers.items() if not w.verified and lease_over(w, now)}
    if silent:
        table = without(table, silent)
    if not table.settled and now - table.started_at >= table.settle_s:
        table = replace(table, settled=True, rev=table.rev + 1)
    if table.loads_changed:
        table = replace(table, loads_changed=False, rev=table.rev + 1)
    return table
