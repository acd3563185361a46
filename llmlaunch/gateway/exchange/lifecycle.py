"""The phases of an exchange, the transitions between them, and what follows a failure. Pure.

::

             no replica is free: the queue
    NEW ─────────────────────────────────► WAITING ◄───────────────────────────────┐
     │                                        │  ▲ │                               │
     │ a replica is chosen                    ▼  └─┘ still no slot                 │ failed, and nothing
     └────────────┬───────────────────────────┘                                    │ went to the client:
                  │                           no pooled connection                 │ another attempt
                  ├──────────────────────────────────────────────► CONNECTING ─────┤
                  ▼                                                    │           │
                SENT ◄─────────────────────────────────────────────────┘           │
                 │  │  ▲                                                           │
                 │  │  └──────── RECONNECTING ─────────────────────────────────────┤
                 │  └────────────────►  the pooled connection was stale            │
                 │ the head of an answer                                           │
                 ▼                                                                 │
             RESPONDING ───────────────────────────────────────────────────────────┘
                 │ its first content goes to the client
                 ▼
             STREAMING
                 │ its last byte, or an interruption
                 ▼
               ENDED        from any other phase, too: refused, the client left, the gateway stops

Each further attempt leads to WAITING, CONNECTING or SENT, as the first one does. ``NEXT`` has all transitions. The exchange
does not check them, which would cost each request about half a microsecond; the tests check every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from llmlaunch.gateway.failures import FailureKind

STALE_S = 1.0
"""Seconds within which a pooled connection that the replica had closed breaks when it is used."""


class ExchangePhase(Enum):
    """The phase of an exchange."""

    NEW = auto()
    WAITING = auto()
    """It waits for a free slot, or as a suspect for its turn."""
    CONNECTING = auto()
    """A replica is chosen, and a new connection to it is being made."""
    RECONNECTING = auto()
    """A new connection to the same replica is being made, because a pooled one broke as soon as it was used."""
    SENT = auto()
    """The replica has the request; its answer has not begun."""
    RESPONDING = auto()
    """The head of the answer came and is held back until the first content."""
    STREAMING = auto()
    """Bytes of the answer have gone to the client."""
    ENDED = auto()


ANSWERING = frozenset({ExchangePhase.RESPONDING, ExchangePhase.STREAMING})
"""The phases in which a replica's answer has begun."""
_TRIED = frozenset({ExchangePhase.WAITING, ExchangePhase.CONNECTING, ExchangePhase.SENT, ExchangePhase.ENDED})
"""The phases that an attempt, or giving up, leads to."""

NEXT: Mapping[ExchangePhase, frozenset[ExchangePhase]] = {
    ExchangePhase.NEW: _TRIED,
    ExchangePhase.WAITING: _TRIED,
    ExchangePhase.CONNECTING: _TRIED,
    ExchangePhase.RECONNECTING: _TRIED,
    ExchangePhase.SENT: _TRIED | {ExchangePhase.RESPONDING, ExchangePhase.RECONNECTING},
    ExchangePhase.RESPONDING: _TRIED | {ExchangePhase.STREAMING},
    ExchangePhase.STREAMING: frozenset({ExchangePhase.ENDED}),
    ExchangePhase.ENDED: frozenset(),
}
"""Phase → the phases that may follow."""


class AfterBreak(Enum):
    """What follows when the connection to a replica breaks before the answer is complete."""

    INTERRUPT = auto()
    """The client has a part of the answer: tell it that the answer ends here."""
    REFUSE = auto()
    """Answer with an error: the replica's answer is invalid, and would be again."""
    RECONNECT = auto()
    """Send it to the same replica again: either an idle connection was closed just as it was used, or the replica died.
    A new connection shows which."""
    RETRY = auto()
    """Nothing has gone to the client: try again if that can help."""


def after_break(
    phase: ExchangePhase, kind: FailureKind, *, pooled: bool, began: bool, after_s: float
) -> AfterBreak:
    """The step after a broken connection.

    ``pooled``: the connection had been used before. ``began``: bytes of an answer came. ``after_s``: seconds since the
    request was sent.
    """
    if phase is ExchangePhase.STREAMING:
        return AfterBreak.INTERRUPT
    if kind is FailureKind.INVALID:
        return AfterBreak.REFUSE
    if pooled and kind is FailureKind.RESET and not began and after_s < STALE_S:
        return AfterBreak.RECONNECT
    return AfterBreak.RETRY


def refused_connection(phase: ExchangePhase, *, timed_out: bool) -> FailureKind:
    """The kind of failure if a replica does not accept a connection in ``phase``."""
    if timed_out:
        return FailureKind.TIMEOUT
    # The pooled connection had not been stale: the replica had died.
    return FailureKind.RESET if phase is ExchangePhase.RECONNECTING else FailureKind.REFUSED
