"""One request as the router sees it: which replica has it, who failed it, and what it waits for."""

from __future__ import annotations

from typing import Protocol

from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.request import ClientRequest
from llmlaunch.gateway.routing.health.replica_health import ReplicaHealth
from llmlaunch.gateway.routing.request_queue import QueueEntry
from llmlaunch.gateway.routing.route_table import RoutedReplica


class Waiter(Protocol):
    """Whom the router tells that a wait is over."""

    def choose_again(self) -> None:
        """Ask :meth:`Router.choose` again."""
        ...

    def refused(self, reply: Reply) -> None:
        """There is nothing more to wait for."""
        ...


class RoutedRequest:
    """Written by the router alone."""

    __slots__ = (
        "attempts", "deferred_since", "health", "holds_slot", "is_probe", "model", "queue_entry", "replica",
        "request", "sent_at", "suspect_key", "tried", "waiter",
    )  # fmt: skip

    def __init__(self, request: ClientRequest, model: str, waiter: Waiter) -> None:
        self.request = request
        self.model = model
        """The name it asks for."""
        self.waiter = waiter
        self.attempts = 0
        self.tried: tuple[str, ...] = ()
        """Replicas that failed it, by key."""
        self.replica: RoutedReplica
        """Chosen last, once there was an attempt."""
        self.health: ReplicaHealth
        """Of ``replica``."""
        self.sent_at = 0.0
        """When it was chosen."""
        self.holds_slot = False
        """One of the replica's slots is taken by this request."""
        self.is_probe = False
        """The replica's breaker is half open, and this request shows whether it closes."""
        self.suspect_key = b""
        """What a suspect is remembered by; empty: it is none."""
        self.deferred_since: float | None = None
        """When a suspect began to wait for its turn."""
        self.queue_entry: QueueEntry[RoutedRequest] | None = None
        """Its place in the queue."""
