"""One request as the router sees it: which replica has it, which ones failed it, and what it waits for."""

from __future__ import annotations

from typing import Protocol

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.request import ClientRequest
from llmlaunch.gateway.routing.health.replica_health import ReplicaHealth
from llmlaunch.gateway.routing.request_queue import QueueEntry
from llmlaunch.gateway.routing.route_table import RoutedReplica


class Waiter(Protocol):
    """What the router calls when a request need not wait any longer."""

    def choose_again(self) -> None:
        """Ask :meth:`Router.choose` again."""
        ...

    def refused(self, reply: Reply) -> None:
        """It is not served: answer with ``reply``."""
        ...


class RoutedRequest:
    """The state of one request. Only the router changes it."""

    __slots__ = (
        "attempts", "deferred_since", "health", "holds_slot", "is_probe", "model", "queue_entry", "replica",
        "request", "sent_at", "suspect_key", "tried", "waiter",
    )  # fmt: skip

    def __init__(self, request: ClientRequest, model: str, waiter: Waiter) -> None:
        self.request = request
        self.model = model
        """The requested served name."""
        self.waiter = waiter
        self.attempts = 0
        self.tried: tuple[str, ...] = ()
        """The keys of replicas that failed it and are left out."""
        self.replica: RoutedReplica
        """The one that was chosen last. Set with the first attempt."""
        self.health: ReplicaHealth
        """The health of ``replica``."""
        self.sent_at = 0.0
        """When a replica was chosen last (seconds)."""
        self.holds_slot = False
        """Whether it takes one of the replica's slots now."""
        self.is_probe = False
        """Whether it probes a replica whose breaker is half open."""
        self.suspect_key = b""
        """The digest of its body if it is a suspect (``health.suspects``); else empty."""
        self.deferred_since: float | None = None
        """When it began to wait for its turn as a suspect (seconds); None: it does not."""
        self.queue_entry: QueueEntry[RoutedRequest] | None = None
        """Its entry in the queue, while it waits there."""
