"""Who serves what: a table of workers, and what time and messages do to it. Pure: ``now`` (seconds, any clock) comes in.

::

               register                        drain
    (unknown) ──────────► SERVING ─────────────────────► DRAINING ──┐
        ▲                  │  ▲ ▲                            │      │ register: a new life
        │                  │  │ └────────────────────────────┼──────┘ at the same address
        │                  │  └─ heartbeat, every 5 s        │
        └──────────────────┴─────────────────────────────────┘
           unregister, or no heartbeat for its lease (of a verified worker: and no answer to the controller itself)

Every function returns a new table; ``rev`` grows whenever what gateways route by has changed.

Where there is a token (a ``guarded`` table) the names that the deployment promises are its own: a worker that registered
without the token is listed for its other names alone, and for none before the deployment has said which it promises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from llmlaunch.common.dispatch_methods import DispatchMethod
from llmlaunch.common.heartbeat import FASTCHAT_LEASE_S, LEASE_S, REPORT_LEASE_S
from llmlaunch.controller.dispatch import Candidate, choose
from llmlaunch.controller.wire import (
    FASTCHAT,
    RegisterWorker,
    ReplicaRoute,
    RoutesResponse,
    WorkerStatus,
)

SETTLE_S = LEASE_S
"""Seconds after its start in which a controller cannot tell a dead worker from one that has not found it yet."""
OPEN_SETTLE_S = 60.0
"""The same where FastChat's own workers may be about: they notice a new controller by their next heartbeat."""
PAUSE_S = 5.0
"""A longer time between two ticks means that the controller itself stood still, and could hear no heartbeat."""
FAILED_ASKS = 3
"""Questions in a row that a verified worker without a heartbeat may leave unanswered."""
DRAIN_NEWS_S = 1.5
"""Seconds within which a gateway has heard of a drain and reported again."""


@dataclass(frozen=True, slots=True)
class RegisteredWorker:
    name: str
    """Its address, ``http://host:port``."""
    model_names: tuple[str, ...]
    last_seen: float
    speed: float = 1.0
    queue_length: int = 0
    check_heart_beat: bool = True
    multimodal: bool = False
    trusted: bool = False
    """Registered by somebody who knew the token: nobody else may change it."""
    granted: tuple[str, ...] | None = None
    """The only names that its own token allows; None: any."""
    verified: bool = False
    """The supervisor vouches for it; it may have no /worker_get_status to ask."""
    probe_path: str = ""
    probe_timeout_s: float = 2.0
    pid: int | None = None
    pid_started: int = 0
    failed_asks: int = 0
    """Since its heartbeat is late: questions in a row without a good answer."""
    draining_since: float | None = None
    component: str = ""
    engine: str = ""
    engine_model: str | None = None
    kind: Literal["generate", "embed", "rerank"] | None = None
    max_concurrency: int | None = None
    request_timeout_s: float | None = None
    keyed: bool = False
    """It asks its callers for the key of its address."""

    @property
    def lease_s(self) -> float:
        """Seconds without a heartbeat after which it is forgotten."""
        return FASTCHAT_LEASE_S if self.engine == FASTCHAT else LEASE_S


@dataclass(frozen=True, slots=True)
class Report:
    """What one gateway said last: requests in flight by worker name."""

    at: float
    in_flight: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Table:
    started_at: float
    ticked_at: float
    settle_s: float = SETTLE_S
    rev: int = 1
    workers: Mapping[str, RegisteredWorker] = field(default_factory=dict)
    expected: tuple[str, ...] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)
    settled: bool = False
    guarded: bool = False
    """There is a token, and ``expected`` is out of reach of who registers without it."""
    names_known: bool = True
    """False: the deployment is about to say what it promises."""
    loads_changed: bool = False
    """Queue lengths that the current revision does not show yet."""


def empty(
    now: float, settle_s: float = SETTLE_S, *, guarded: bool = False, names_known: bool = True
) -> Table:
    return Table(started_at=now, ticked_at=now, settle_s=settle_s, guarded=guarded, names_known=names_known)


def worker_from(
    request: RegisterWorker,
    status: WorkerStatus,
    now: float,
    *,
    trusted: bool,
    granted: tuple[str, ...] | None = None,
) -> RegisteredWorker:
    """The worker that ``request`` describes, with the models and speed of ``status``."""
    return RegisteredWorker(
        name=request.worker_name,
        model_names=_granted(status.model_names, granted),
        last_seen=now,
        speed=status.speed,
        queue_length=status.queue_length,
        check_heart_beat=request.check_heart_beat,
        multimodal=request.multimodal,
        trusted=trusted,
        granted=granted,
        verified=trusted and granted is None and request.verified,
        probe_path=request.probe_path,
        probe_timeout_s=request.probe_timeout_s,
        pid=request.pid,
        pid_started=request.pid_started,
        component=request.component,
        engine=request.engine,
        engine_model=request.engine_model,
        kind=request.kind,
        max_concurrency=request.max_concurrency,
        request_timeout_s=request.request_timeout_s,
        keyed=trusted and request.keyed,
    )


def _granted(names: Sequence[str], granted: tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple(n for n in dict.fromkeys(names) if granted is None or n in granted)


def refusal(table: Table, name: str, model_names: Sequence[str], *, trusted: bool) -> str:
    """Why somebody may not speak for the worker ``name``, or register it for ``model_names``; empty: they may."""
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


def offered(table: Table, worker: RegisteredWorker) -> tuple[str, ...]:
    """The names that requests reach ``worker`` by."""
    if worker.trusted or not table.guarded:
        return worker.model_names
    if not table.names_known:
        return ()
    return tuple(name for name in worker.model_names if name not in table.expected)


def register(table: Table, worker: RegisteredWorker) -> Table:
    """Add ``worker``; one at the same address is replaced, its drain forgotten."""
    old = table.workers.get(worker.name)
    workers = {**table.workers, worker.name: worker}
    if old is not None and replace(old, last_seen=worker.last_seen) == worker:
        return replace(table, workers=workers)
    return replace(table, workers=workers, rev=table.rev + 1)


def heartbeat(table: Table, name: str, queue_length: int, now: float) -> tuple[Table, bool]:
    """The worker is alive. False: it is not in the table and has to register."""
    worker = table.workers.get(name)
    if worker is None:
        return table, False
    fresh = replace(worker, last_seen=now, queue_length=queue_length, failed_asks=0)
    changed = table.loads_changed or queue_length != worker.queue_length
    return replace(table, workers={**table.workers, name: fresh}, loads_changed=changed), True


def late(table: Table, now: float) -> list[RegisteredWorker]:
    """Verified workers whose lease is over. They do not send heartbeats themselves: their supervisor may be what is
    silent, frozen or busy with a disk, while they are well. So each has to be asked before it goes.
    """
    return [w for w in table.workers.values() if w.verified and _lease_over(w, now)]


def answered(table: Table, asked: RegisteredWorker) -> Table:
    """``asked``, one of the late, is well."""
    if table.workers.get(asked.name) != asked or not asked.failed_asks:
        return table
    return replace(table, workers={**table.workers, asked.name: replace(asked, failed_asks=0)})


def unanswered(table: Table, asked: RegisteredWorker, *, gone: bool) -> Table:
    """``asked``, one of the late, gave no good answer; ``gone``: it cannot give one any more.

    Nothing happens to a worker that was heard of meanwhile.
    """
    if table.workers.get(asked.name) != asked:
        return table
    if gone or asked.failed_asks + 1 >= FAILED_ASKS:
        return _without(table, {asked.name})
    failed = replace(asked, failed_asks=asked.failed_asks + 1)
    return replace(table, workers={**table.workers, asked.name: failed})


def refresh(table: Table, name: str, status: WorkerStatus) -> Table:
    """Take over what the worker says of itself; nothing happens when it has left meanwhile."""
    worker = table.workers.get(name)
    if worker is None:
        return table
    names = _granted(status.model_names, worker.granted)
    fresh = replace(worker, model_names=names, speed=status.speed, queue_length=status.queue_length)
    return register(table, fresh)


def unregister(table: Table, name: str) -> tuple[Table, bool]:
    """Remove the worker. False: there was none."""
    if name not in table.workers:
        return table, False
    return _without(table, {name}), True


def drain(table: Table, name: str, now: float) -> tuple[Table, bool]:
    """No new request shall reach the worker; what it works on goes on. False: there is no such worker."""
    worker = table.workers.get(name)
    if worker is None:
        return table, False
    if worker.draining_since is not None:
        return table, True
    workers = {**table.workers, name: replace(worker, draining_since=now)}
    return replace(table, workers=workers, rev=table.rev + 1), True


def expect(table: Table, names: Sequence[str]) -> Table:
    """Every served name the manifest promises."""
    expected = tuple(dict.fromkeys(names))
    if expected == table.expected and table.names_known:
        return table
    return replace(table, expected=expected, names_known=True, rev=table.rev + 1)


def report(table: Table, gateway: str, in_flight: Mapping[str, int], now: float) -> Table:
    """What ``gateway`` has in flight, replacing its last report."""
    busy = {name: count for name, count in in_flight.items() if count > 0}
    return replace(table, reports={**table.reports, gateway: Report(now, busy)})


def in_flight(table: Table, name: str, now: float) -> int:
    """Requests of all gateways that the worker holds.

    Right after a drain began, a gateway that was busy with the worker counts as one request at least, until it has
    reported again: it may have sent one just before it heard of the drain.
    """
    fresh = [r for r in table.reports.values() if now - r.at <= REPORT_LEASE_S]
    total = sum(r.in_flight.get(name, 0) for r in fresh)
    worker = table.workers.get(name)
    since = worker.draining_since if worker else None
    if total == 0 and since is not None and now - since < DRAIN_NEWS_S:
        return sum(1 for r in fresh if r.at < since and r.in_flight)
    return total


def tick(table: Table, now: float) -> Table:
    """What time does: leases run out, old reports are dropped, the controller settles, loads are published."""
    pause = now - table.ticked_at
    workers = table.workers
    if pause > PAUSE_S:
        workers = {
            name: replace(worker, last_seen=min(now, worker.last_seen + pause))
            for name, worker in workers.items()
        }
    reports = {g: r for g, r in table.reports.items() if now - r.at <= REPORT_LEASE_S}
    table = replace(table, workers=workers, reports=reports, ticked_at=now)
    silent = {n for n, w in workers.items() if not w.verified and _lease_over(w, now)}
    if silent:
        table = _without(table, silent)
    if not table.settled and now - table.started_at >= table.settle_s:
        table = replace(table, settled=True, rev=table.rev + 1)
    if table.loads_changed:
        table = replace(table, loads_changed=False, rev=table.rev + 1)
    return table


def assign(
    table: Table, model: str, dispatch: DispatchMethod, draw: float, now: float, turn: int = 0
) -> tuple[Table, str]:
    """The address of a worker for one request for ``model``, "" when nobody serves it; ``draw`` and ``turn`` as in dispatch.

    The request counts in that worker's queue until its next heartbeat, as in FastChat: a burst of questions between
    two heartbeats shall not all get the same answer.
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
    """Names that somebody serves now, sorted; of one kind when ``multimodal`` says so."""
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


def _lease_over(worker: RegisteredWorker, now: float) -> bool:
    return worker.check_heart_beat and now - worker.last_seen > worker.lease_s


def _without(table: Table, names: set[str]) -> Table:
    workers = {name: worker for name, worker in table.workers.items() if name not in names}
    return replace(table, workers=workers, rev=table.rev + 1)
