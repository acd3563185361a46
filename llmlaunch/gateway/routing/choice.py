"""Which replica gets a request, and whether the request has to wait. Pure: load, time and chance come in as arguments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from llmlaunch.common.dispatch_methods import DispatchMethod
from llmlaunch.controller.dispatch import Candidate, choose
from llmlaunch.gateway.multiprocess.shares import share
from llmlaunch.gateway.routing.health.replica_health import ReplicaHealth
from llmlaunch.gateway.routing.route_table import RoutedReplica

WAITING_PER_SLOT = 4
"""Requests that may wait for each request that the replicas work on at once."""
WAITING_BESIDE = 64
"""Requests that may wait for a model beside those."""
UNCAPPED_MOST = 1024
"""Requests at once for a replica whose max_concurrency is unknown. Engines have a queue of their own."""


IDLE = ReplicaHealth()


def pick(
    replicas: Sequence[RoutedReplica],
    health_of: Mapping[str, ReplicaHealth],
    tried: Collection[str],
    dispatch: DispatchMethod,
    now: float,
    draw: float,
    turn: int = 0,
    prefix: bytes = b"",
) -> RoutedReplica | None:
    """The replica for one request; None if all that could take it are at their max_concurrency.

    ``tried``: keys of replicas that have failed this request, which are left out. ``draw``, ``turn`` and ``prefix``: see
    ``controller.dispatch``. Raises LookupError if all ``replicas`` were tried.
    """
    if tried:
        replicas = [r for r in replicas if r.key not in tried]
    if len(replicas) == 1:  # the usual case is worth a fast path that allocates nothing
        only = replicas[0]
        return only if _has_slot(only, health_of) else None
    if not replicas:
        raise LookupError("no replica is left")
    awake = [r for r in replicas if health_of.get(r.key, IDLE).takes(now)]
    if not awake:  # to be refused costs nothing, to ask a silent one costs a long wait
        awake = [r for r in replicas if not health_of.get(r.key, IDLE).doubted]
    candidates = []
    for replica in awake or replicas:
        if _has_slot(replica, health_of):
            health = health_of.get(replica.key, IDLE)
            speed = replica.speed if health.since is None else replica.speed * health.warmth(now)
            candidates.append(Candidate(replica.key, speed, health.in_flight + health.others))
    if not candidates:
        return None
    key = candidates[0].key if len(candidates) == 1 else choose(dispatch, candidates, draw, turn, prefix).key
    return next(r for r in replicas if r.key == key)


def is_full(
    replicas: Sequence[RoutedReplica],
    health_of: Mapping[str, ReplicaHealth],
    tried: Collection[str],
    now: float,
) -> bool:
    """Whether :func:`pick` would return None. False also if it would raise LookupError."""
    try:
        return pick(replicas, health_of, tried, "shortest_queue", now, 0.0) is None
    except LookupError:
        return False


def _has_slot(replica: RoutedReplica, health_of: Mapping[str, ReplicaHealth]) -> bool:
    return health_of.get(replica.key, IDLE).in_flight < (replica.max_concurrency or UNCAPPED_MOST)


def places_to_wait(replicas: Iterable[RoutedReplica], processes: int = 1) -> int:
    """How many requests may wait for ``replicas`` in each of ``processes``."""
    return sum(WAITING_PER_SLOT * (r.max_concurrency or 0) for r in replicas) + share(
        WAITING_BESIDE, processes
    )
