"""Does what ``suspects`` decides: makes suspects wait for their turn, and shares deaths with the gateway's other processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from llmlaunch.gateway import errors
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.multiprocess.death_ledger import DeathLedger, DeathRecord, replica_name, replica_number
from llmlaunch.gateway.routing.health.suspects import SUSPECTED_S, Suspects, key_of
from llmlaunch.gateway.routing.route_table import RouteTable
from llmlaunch.gateway.routing.routed_request import RoutedRequest

log = logging.getLogger(__name__)

TRIALS_S = 0.01
"""Seconds between two checks whether a suspect's turn has come."""


class SuspectTrials:
    """The suspects of one gateway process. ``ledger`` is None if there is only one process."""

    def __init__(self, now: Callable[[], float], ledger: DeathLedger | None) -> None:
        self.suspects = Suspects()
        self.ledger = ledger
        self._now = now
        self._deferred: list[RoutedRequest] = []
        """Suspects that wait for their turn."""

    # -- deaths

    def died(self, routed: RoutedRequest, table: RouteTable) -> None:
        """Note that its replica died or fell silent while it had the request. Draining replicas do not count."""
        request, replica = routed.request, routed.replica
        key = routed.suspect_key = routed.suspect_key or key_of(request.body)
        known = table.replicas.get(replica.key)
        if known is None or known.draining:
            return
        now, size = self._now(), len(request.body)
        if self.ledger is not None:
            self.read_ledger(table)
            self.ledger.write(DeathRecord(key, size, replica_number(replica.key), routed.sent_at, now))
        self.suspects.note_replicas(table.replicas)
        seconds = self.suspects.record_death(key, size, replica.key, routed.sent_at, now)
        if seconds:
            log.warning(
                "%s died or fell silent with request %s (%d bytes for %s), as another replica did before: "
                "it is refused for %.0f s",
                replica.key, request.identity.decode(), size, ", ".join(replica.names), seconds,
            )  # fmt: skip

    def read_ledger(self, table: RouteTable) -> None:
        """Take over the deaths and answers of the other processes."""
        for record in () if self.ledger is None else self.ledger.read():
            if not record.replica:
                self.suspects.clear(record.key)
            elif self._now() - record.at < SUSPECTED_S:
                self.suspects.note_replicas(table.replicas)
                replica = replica_name(record.replica, table.replicas)
                self.suspects.record_death(record.key, record.size, replica, record.sent_at, record.at)

    def answered(self, key: bytes) -> None:
        """Note that the suspect ``key`` got a whole answer, and tell the other processes."""
        if self.suspects.clear(key) and self.ledger is not None:
            self.ledger.write(DeathRecord(key, 0, 0, 0.0, self._now()))

    def routes_changed(self, table: RouteTable) -> None:
        """Note the replicas of a new ``table``: if all of them are new, all suspects are cleared."""
        if self.suspects:
            self.suspects.replicas_changed(table.replicas)

    def refused_for_s(self, routed: RoutedRequest) -> float:
        """For how many seconds the request is refused; 0: it is not."""
        return self.suspects.refused_for_s(routed.suspect_key, self._now()) if routed.suspect_key else 0.0

    def expire(self, now: float) -> None:
        """Forget old suspects."""
        if self.suspects:
            self.suspects.expire(now)

    # -- turns

    def avoided(self, routed: RoutedRequest, now: float) -> frozenset[str] | Reply | None:
        """The replicas that this suspect may not be sent to now, or the reply that refuses it. None: it waits for its turn."""
        suspects, key = self.suspects, routed.suspect_key
        seconds = suspects.refused_for_s(key, now)
        if seconds:
            return errors.request_breaks_replicas(routed.model, seconds)
        if suspects.is_free(key):
            return frozenset()
        avoided = None
        if routed.deferred_since is None:  # first let the others of the same death arrive
            routed.deferred_since = now
        else:
            avoided = suspects.avoided(key, now - routed.deferred_since, now)
        if avoided is None:
            self.defer(routed)
        return avoided

    def begin(self, routed: RoutedRequest, replica: str) -> None:
        """Note that the suspect is sent to ``replica``."""
        routed.deferred_since = None
        self.suspects.trial_began(routed.suspect_key, replica, routed.sent_at)

    def defer(self, routed: RoutedRequest) -> None:
        """Check again shortly whether its turn has come."""
        if not self._deferred:
            asyncio.get_running_loop().call_later(TRIALS_S, self._try_suspects)
        self._deferred.append(routed)

    def stop_waiting(self, routed: RoutedRequest) -> None:
        """Stop waiting for its turn."""
        if routed in self._deferred:
            self._deferred.remove(routed)

    def _try_suspects(self) -> None:
        waiting, self._deferred = self._deferred, []
        age = self.suspects.age
        for routed in sorted(waiting, key=lambda one: age(one.suspect_key)):
            routed.waiter.choose_again()
