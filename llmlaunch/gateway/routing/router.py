"""Which replica gets a request, and when: choose, wait, retry, release.

::

    enter ─► choose ─► a replica has it ─► release
               │ ▲          │
               ▼ │          └─ retry: choose again, or the reply that says why not
              waits: in the queue for a slot, or as a suspect for its turn

The only writer of routes, replicas' health, the queue and the suspects of one gateway process. The decisions are in
``choice``, ``retry``, ``request_queue`` and ``health.suspects``, which are pure; the router gives them time and chance, and
puts them together.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.failures import FailureKind
from llmlaunch.gateway.multiprocess.death_ledger import DeathLedger
from llmlaunch.gateway.request import ClientRequest
from llmlaunch.gateway.routing.affinity import prefix_of
from llmlaunch.gateway.routing.choice import is_full, pick, places_to_wait
from llmlaunch.gateway.routing.health.replica_health import ReplicaHealth
from llmlaunch.gateway.routing.health.suspect_trials import SuspectTrials
from llmlaunch.gateway.routing.request_queue import RequestQueue
from llmlaunch.gateway.routing.retry import ATTEMPTS, NextStep, RetryBudget, after_failure, tried_after
from llmlaunch.gateway.routing.route_table import RoutedReplica, RouteTable
from llmlaunch.gateway.routing.routed_request import RoutedRequest, Waiter

log = logging.getLogger(__name__)

QUEUE_TIMEOUT_S = 300.0
"""Seconds that a request may wait for a free slot: half of what OpenAI's clients wait for an answer. The queue is bounded,
and clients that leave are noticed, so a long wait costs others nothing."""
_OWN_FAULTS = frozenset((500, 502, 504))
"""Answers that count against a replica's health."""


class Router:
    """Routes the requests of one event loop."""

    def __init__(
        self,
        now: Callable[[], float],
        processes: int = 1,
        ledger: DeathLedger | None = None,
        on_retry: Callable[[FailureKind], None] = lambda kind: None,
        on_routes: Callable[[], None] = lambda: None,
    ) -> None:
        """``processes`` share the replicas, and tell each other of deaths through ``ledger``.

        ``on_retry`` is called with the reason of each retry, ``on_routes`` after each new table.
        """
        self._now = now
        self.processes = processes
        self._on_retry = on_retry
        self._on_routes = on_routes
        self.table = RouteTable()
        self.controller_answered = False
        """Whether the controller has answered at least once."""
        self.controller_up = False
        """Whether the controller answered last time."""
        self.health_of: dict[str, ReplicaHealth] = {}
        """The health of each replica, by key."""
        self.queue: RequestQueue[RoutedRequest] = RequestQueue()
        self.trials = SuspectTrials(now, ledger)
        self.retries = RetryBudget(at=now())
        self.drained = asyncio.Event()
        """Set when a draining replica has no more requests of ours, which the controller should know at once."""
        self._turns: dict[str, int] = {}
        """Model → number of the last request, for round robin."""
        self._draining: frozenset[str] = frozenset()

    # -- one request

    def enter(self, request: ClientRequest, model: str, waiter: Waiter) -> RoutedRequest:
        """Take on a request for ``model``; :meth:`choose` a replica for it next."""
        routed = RoutedRequest(request, model, waiter)
        self.retries.request()
        trials = self.trials
        if trials.ledger is not None and trials.ledger.has_new_entries:
            trials.read_ledger(self.table)
        if trials.suspects.sizes:
            routed.suspect_key = trials.suspects.key_if_suspected(request.body)
        return routed

    def choose(self, routed: RoutedRequest, why: str = "") -> RoutedReplica | Reply | None:
        """The replica that has the request from now on, or the reply if there is none. None: it waits.

        ``why``: how the last attempt failed.
        """
        model = routed.model
        replicas = self.table.serving.get(model, ())
        if routed.request.holder:
            replicas = self._candidates(routed)
        if not replicas:
            if routed.request.holder:
                why = "the replica that holds the response is gone"
            return errors.replica_unavailable(model, why) if why else self.not_served(model)
        routed.sent_at = now = self._now()
        tried = routed.tried
        if routed.suspect_key:
            avoided = self.trials.avoided(routed, now)
            if avoided is None or isinstance(avoided, Reply):
                return avoided
            if avoided and all(r.key in tried or r.key in avoided for r in replicas):
                self.trials.defer(routed)
                return None
            tried = (*tried, *avoided)
        try:
            replica = self._pick(routed, replicas, tried, now)
        except LookupError:
            return errors.replica_unavailable(model, why or "every replica was tried")
        if replica is None:
            return self._enqueue(routed, replicas, now)
        routed.attempts += 1
        routed.replica = replica
        routed.health = health = self.health_of.get(replica.key) or self.health(replica.key)
        health.in_flight += 1
        routed.holds_slot = True
        if health.failures and not health.probing:
            health.probing = routed.is_probe = True
        if routed.suspect_key:
            self.trials.begin(routed, replica.key)
        return replica

    def has_alternative(self, routed: RoutedRequest) -> bool:
        """Whether there is another replica for one more attempt."""
        tried = (*routed.tried, routed.replica.key) if routed.holds_slot else routed.tried
        return routed.attempts < ATTEMPTS and any(r.key not in tried for r in self._candidates(routed))

    def began(self, routed: RoutedRequest, status: int) -> None:
        """Note that an answer with the HTTP ``status`` has begun."""
        health = routed.health
        health.answers_begun += 1
        if status in _OWN_FAULTS:
            health.erred(self._now())
        elif health.failures or health.errors:
            health.answered()

    def answered(self, routed: RoutedRequest, status: int) -> None:
        """Note that the answer to a suspect is complete."""
        if status < 500:
            self.trials.answered(routed.suspect_key)

    def failed(self, routed: RoutedRequest, kind: FailureKind) -> None:
        """Note what a failed attempt says about the replica and about the request."""
        if kind.counts_against_health:
            routed.health.failed(self._now())
        if kind.is_death and routed.request.body:
            self.trials.died(routed, self.table)

    def retry(self, routed: RoutedRequest, kind: FailureKind, why: str) -> RoutedReplica | Reply | None:
        """Release the slot and :meth:`choose` again, after :meth:`failed`. Nothing may have gone to the client yet."""
        replica, model = routed.replica, routed.model
        serving = tuple(r.key for r in self.table.serving.get(model, ()))
        routed.tried = tried_after(routed.tried, replica.key, serving)
        self.release(routed)
        refused_s = self.trials.refused_for_s(routed)
        alternative = self.has_alternative(routed)
        step = after_failure(refused_s=refused_s, attempts=routed.attempts, has_alternative=alternative)
        if step is NextStep.REFUSE_CULPRIT:
            return errors.request_breaks_replicas(model, refused_s)
        if step is NextStep.GIVE_UP:
            return errors.replica_unavailable(model, why)
        if step is NextStep.TRY_ANOTHER:
            if not self.retries.take(self._now()):
                return errors.replica_unavailable(
                    model, f"{why}, and too many requests are being retried already"
                )
            self._on_retry(kind)
        return self.choose(routed, why)

    def release(self, routed: RoutedRequest) -> None:
        """Release its slot, if it has one, to the requests that wait."""
        if not routed.holds_slot:
            return
        routed.holds_slot = False
        replica = routed.replica
        routed.health.in_flight -= 1
        if routed.suspect_key:
            self.trials.suspects.trial_ended(routed.suspect_key, replica.key)
        if routed.is_probe:
            routed.is_probe = routed.health.probing = False
        if replica.key in self._draining and not routed.health.in_flight:
            self.drained.set()
        if self.queue:
            self._serve_queue(replica.names)

    def withdraw(self, routed: RoutedRequest) -> None:
        """Stop waiting. A slot is kept until :meth:`release`."""
        self._leave_queue(routed)
        if routed.deferred_since is not None:
            self.trials.stop_waiting(routed)

    def _candidates(self, routed: RoutedRequest) -> tuple[RoutedReplica, ...]:
        """The replicas that take requests for its model and can answer it."""
        replicas = self.table.serving.get(routed.model, ())
        holder = routed.request.holder
        return replicas if not holder else tuple(r for r in replicas if r.key == holder)

    def _pick(
        self, routed: RoutedRequest, replicas: Sequence[RoutedReplica], tried: Sequence[str], now: float
    ) -> RoutedReplica | None:
        dispatch, turn, prefix = self.table.dispatch, 0, b""
        if dispatch == "round_robin":
            turn = self._turns[routed.model] = self._turns.get(routed.model, -1) + 1
        elif dispatch == "prefix" and len(replicas) > 1 and not routed.request.boundary:
            prefix = prefix_of(routed.request.body)
        return pick(replicas, self.health_of, tried, dispatch, now, random.random(), turn, prefix)

    # -- the queue

    def _enqueue(self, routed: RoutedRequest, replicas: Sequence[RoutedReplica], now: float) -> Reply | None:
        queue, model, api_key = self.queue, routed.model, routed.request.api_key
        bound = places_to_wait(replicas, self.processes)
        if queue.waiting(model) >= bound:
            evicted = queue.evictable(model, api_key.name)
            if evicted is not None:  # another key has most of the places
                self._leave_queue(evicted.item)
                evicted.item.waiter.refused(errors.queue_share_full(model))
        deadline = now + QUEUE_TIMEOUT_S
        routed.queue_entry = queue.add(routed, model, deadline, bound, api_key.name, api_key.limits.priority)
        return None if routed.queue_entry is not None else errors.queue_full(model, queue.waiting(model))

    def _leave_queue(self, routed: RoutedRequest) -> None:
        if routed.queue_entry is not None:
            self.queue.remove(routed.queue_entry)
            routed.queue_entry = None

    def serve_waiting(self) -> None:
        """Serve all queues: there may be free slots because a replica joined or has recovered."""
        for name in self.queue.names:
            self._serve_queue((name,))

    def _serve_queue(self, names: tuple[str, ...]) -> None:
        for entry in self.queue.in_order(names):
            routed = entry.item
            replicas = self._candidates(routed)
            if replicas and is_full(replicas, self.health_of, routed.tried, self._now()):
                if not routed.tried and not routed.request.holder:
                    return
                continue  # the free replicas have failed this one already; they may serve the next
            if self.queue.holds(entry):
                self.queue.mark_served(entry)
                self._leave_queue(routed)
                routed.waiter.choose_again()

    def refuse_overdue(self, now: float) -> None:
        """Refuse the requests that have waited for QUEUE_TIMEOUT_S."""
        for entry in self.queue.overdue(now):
            self._leave_queue(entry.item)
            entry.item.waiter.refused(errors.queue_timeout(entry.name, QUEUE_TIMEOUT_S))

    # -- routes

    def adopt(self, table: RouteTable) -> None:
        """Use ``table``, which came from the controller, from now on."""
        before = self.table
        self.table = table
        now = self._now()
        for replica in table.replicas.values():
            health = self.health(replica.key)
            health.reported(replica.queue_length)
            if replica.key not in before.replicas:
                joins = any(name in before.serving for name in replica.names)
                health.joined(now if joins else None)
        self.trials.routes_changed(table)
        self.controller_answered = True
        gone = [k for k, health in self.health_of.items() if not health.in_flight and k not in table.replicas]
        for key in gone:
            del self.health_of[key]
        if table.serving.keys() != before.serving.keys():
            self._turns.clear()
            log.info("serving %s", ", ".join(table.names) or "nothing yet")
        draining = frozenset(r.key for r in table.replicas.values() if r.draining)
        if draining - self._draining:
            self.drained.set()
        self._draining = draining
        self.serve_waiting()
        self._on_routes()

    def adopt_saved(self, table: RouteTable) -> None:
        """Use ``table``, which an earlier gateway has saved, until the controller answers."""
        self.adopt(table)
        self.controller_answered = False

    def not_served(self, name: str) -> Reply:
        """The error for a ``name`` that no replica serves now."""
        table = self.table
        if name in table.expected or any(name in r.names for r in table.replicas.values()):
            return errors.model_not_ready(name)
        if not self.controller_answered:
            return errors.gateway_starting()
        if not table.settled and not table.expected:
            return errors.model_not_ready(name)
        return errors.model_not_found(name)

    def known_name(self, name: str) -> str:
        """``name`` if the deployment has it, else empty. Metrics hold known names only."""
        return name if name in self.table.serving or name in self.table.expected else ""

    def health(self, key: str) -> ReplicaHealth:
        """The health of the replica ``key``."""
        found = self.health_of.get(key)
        if found is None:
            found = self.health_of[key] = ReplicaHealth()
        return found

    def in_flight(self) -> dict[str, int]:
        """This process's requests at each replica that has any, by key."""
        return {key: health.in_flight for key, health in self.health_of.items() if health.in_flight}

    def sweep(self, now: float) -> None:
        """Refuse overdue requests and serve the queues. Called about once a second."""
        self.refuse_overdue(now)
        self.serve_waiting()
