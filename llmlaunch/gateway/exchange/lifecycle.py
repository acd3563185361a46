"""The life of one exchange: its phases, which may follow which, and what a failure leads to. Pure.

::

             no replica is free: the queue
    NEW ─────────────────────────────────► WAITING ◄───────────────────────────────┐
     │                                        │  ▲ │                               │
     │ a replica is chosen                    ▼  └─┘ still no slot                 │ a try failed, nothing
     └────────────┬───────────────────────────┘                                    │ went to the client:
                  │                           no pooled connection                 │ another try
                  ├──────────────────────────────────────────────► CONNECTING ─────┤
                  ▼                                                    │           │
                SENT ◄─────────────────────────────────────────────────┘           │
                 │  │  ▲                                                           │
                 │  │  └──────── RECONNECTING ─────────────────────────────────────┤
                 │  └────────────────►  the pooled connection was stale            │
                 │ the head of an answer                                           │
                 ▼                                                                 │
             RESPONDING ───────────────────────────────────────────────────────────┘
                 │ its first content: from here on the client has a part of it
                 ▼
             STREAMING
                 │ its last byte, or an interruption
                 ▼
               ENDED        every other phase ends here, too: refused, the client left, the gateway stops

A failed try leads to WAITING, CONNECTING or SENT, as a first one does. ``NEXT`` is the whole of it. The exchange sets its
phase without looking there, for that would cost every request some half a microsecond; the tests look at every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from llmlaunch.gateway.failures import FailureKind

STALE_S = 1.0
"""A connection that was closed while it lay idle breaks within this time of its use (seconds)."""


class ExchangePhase(Enum):
    """Where an exchange is."""

    NEW = auto()
    WAITING = auto()
    """For a free slot, or, a suspect, for its turn."""
    CONNECTING = auto()
    """A replica is chosen, and a connection to it is being made."""
    RECONNECTING = auto()
    """To the same replica: a pooled connection broke as soon as it was used."""
    SENT = auto()
    """The replica has the request; nothing of an answer came."""
    RESPONDING = auto()
    """The head of its answer came and is held back until the first content."""
    STREAMING = auto()
    """Bytes of the answer went to the client."""
    ENDED = auto()


ANSWERING = frozenset({ExchangePhase.RESPONDING, ExchangePhase.STREAMING})
"""A replica's answer has begun."""
_TRIED = frozenset({ExchangePhase.WAITING, ExchangePhase.CONNECTING, ExchangePhase.SENT, ExchangePhase.ENDED})
"""What another try, or none, leads to."""

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
"""ExchangePhase → those that may follow."""


class AfterBreak(Enum):
    """What follows when the connection to a replica is gone before the answer is whole."""

    INTERRUPT = auto()
    """The client has a part of the answer: say that it ends here."""
    REFUSE = auto()
    """Tell the client what is wrong with the replica's answer: another try would bring the same."""
    RECONNECT = auto()
    """Ask the same replica again: it closed an idle connection just as it was taken, or it died. Whether it takes
    another connection shows which."""
    RETRY = auto()
    """Nothing went to the client: try again where that can help."""


def after_break(
    phase: ExchangePhase, kind: FailureKind, *, pooled: bool, began: bool, after_s: float
) -> AfterBreak:
    """``pooled``: the connection had been used before; ``began``: bytes of an answer came; ``after_s``: seconds since
    the request was sent."""
    if phase is ExchangePhase.STREAMING:
        return AfterBreak.INTERRUPT
    if kind is FailureKind.INVALID:
        return AfterBreak.REFUSE
    if pooled and kind is FailureKind.RESET and not began and after_s < STALE_S:
        return AfterBreak.RECONNECT
    return AfterBreak.RETRY


def refused_connection(phase: ExchangePhase, *, timed_out: bool) -> FailureKind:
    """What it means that a replica did not take a connection."""
    if timed_out:
        return FailureKind.TIMEOUT
    # What looked like an idle connection's end was the replica's.
    return FailureKind.RESET if phase is ExchangePhase.RECONNECTING else FailureKind.REFUSED
