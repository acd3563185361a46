"""The table of workers as a value: who serves what, and what gateways have said. Pure.

``registry.py`` computes the next table from the last; ``lookup.py`` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from llmlaunch.common.heartbeat import FASTCHAT_LEASE_S, LEASE_S
from llmlaunch.controller.wire import FASTCHAT, RegisterWorker, WorkerStatus

SETTLE_S = LEASE_S
"""Seconds after its start in which a controller cannot tell a dead worker from one that has not registered with it yet."""
OPEN_SETTLE_S = 60.0
"""The same where FastChat's own workers may register: they notice a new controller by their next heartbeat."""


@dataclass(frozen=True, slots=True)
class RegisteredWorker:
    """One worker, as it registered and as it was last heard of. Times are seconds of the controller's clock."""

    name: str
    """Its address, ``http://host:port``."""
    model_names: tuple[str, ...]
    last_seen: float
    speed: float = 1.0
    queue_length: int = 0
    check_heart_beat: bool = True
    multimodal: bool = False
    trusted: bool = False
    """Registered with a token: callers without one may not change it."""
    allowed_names: tuple[str, ...] | None = None
    """The only names that its own token allows; None: any."""
    verified: bool = False
    """The supervisor vouches for it; it may have no /worker_get_status."""
    probe_path: str = ""
    probe_timeout_s: float = 2.0
    pid: int | None = None
    pid_started: int = 0
    failed_probes: int = 0
    """Failed probes in a row since its heartbeat is late."""
    draining_since: float | None = None
    component: str = ""
    engine: str = ""
    engine_model: str | None = None
    kind: Literal["generate", "embed", "rerank", "audio"] | None = None
    max_concurrency: int | None = None
    request_timeout_s: float | None = None
    max_model_len: int | None = None
    keyed: bool = False
    """It requires the key of its address of its callers (``tokens.worker_key``)."""

    @property
    def lease_s(self) -> float:
        """Seconds without a heartbeat after which it is removed."""
        return FASTCHAT_LEASE_S if self.engine == FASTCHAT else LEASE_S


@dataclass(frozen=True, slots=True)
class Report:
    """The last report of one gateway: requests in flight by worker name."""

    at: float
    in_flight: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Table:
    """All workers, and what gateways and the supervisor have reported. Times are seconds of one clock."""

    started_at: float
    ticked_at: float
    settle_s: float = SETTLE_S
    rev: int = 1
    workers: Mapping[str, RegisteredWorker] = field(default_factory=dict)
    expected: tuple[str, ...] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)
    settled: bool = False
    guarded: bool = False
    """There is a token, and nobody may serve a name of ``expected`` without it."""
    names_known: bool = True
    """False: the supervisor has not sent ``expected`` yet."""
    loads_changed: bool = False
    """Whether queue lengths have changed since the current revision."""


def empty(
    now: float, settle_s: float = SETTLE_S, *, guarded: bool = False, names_known: bool = True
) -> Table:
    """The table of a controller that starts at ``now``."""
    return Table(started_at=now, ticked_at=now, settle_s=settle_s, guarded=guarded, names_known=names_known)


def worker_from(
    request: RegisterWorker,
    status: WorkerStatus,
    now: float,
    *,
    trusted: bool,
    allowed_names: tuple[str, ...] | None = None,
) -> RegisteredWorker:
    """The worker that ``request`` describes, with the models and speed of ``status``."""
    return RegisteredWorker(
        name=request.worker_name,
        model_names=restrict(status.model_names, allowed_names),
        last_seen=now,
        speed=status.speed,
        queue_length=status.queue_length,
        check_heart_beat=request.check_heart_beat,
        multimodal=request.multimodal,
        trusted=trusted,
        allowed_names=allowed_names,
        verified=trusted and allowed_names is None and request.verified,
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
        max_model_len=request.max_model_len,
        keyed=trusted and request.keyed,
    )


def restrict(names: Sequence[str], allowed_names: tuple[str, ...] | None) -> tuple[str, ...]:
    """``names`` without duplicates, and without those that ``allowed_names`` does not have; None allows any."""
    return tuple(n for n in dict.fromkeys(names) if allowed_names is None or n in allowed_names)


def offered(table: Table, worker: RegisteredWorker) -> tuple[str, ...]:
    """The names under which ``worker`` gets requests."""
    if worker.trusted or not table.guarded:
        return worker.model_names
    if not table.names_known:
        return ()
    return tuple(name for name in worker.model_names if name not in table.expected)


def lease_over(worker: RegisteredWorker, now: float) -> bool:
    """Whether ``worker`` owes a heartbeat for longer than its lease."""
    return worker.check_heart_beat and now - worker.last_seen > worker.lease_s


def without(table: Table, names: set[str]) -> Table:
    """The table when the workers ``names`` are gone."""
    workers = {name: worker for name, worker in table.workers.items() if name not in names}
    return replace(table, workers=workers, rev=table.rev + 1)
