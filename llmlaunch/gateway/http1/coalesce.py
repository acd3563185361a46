"""Handle the events of many streams in batches, the way network cards coalesce interrupts.

An event that is handled alone costs the process a wake-up and finds the CPU's caches cold. When thousands of events come
each second, the loop does not wake up for each one: it polls every :data:`GATHER_S` seconds and finds several.
"""

from __future__ import annotations

import time
from collections.abc import Callable

GATHER_S = 0.0008
"""The longest that an event waits for others, in seconds. The tokens of one response are much further apart."""
WORTH = 3
"""Batching begins when at least this many events are expected within :data:`GATHER_S`."""
TURNS = 16
"""Turns of the loop after which it is decided whether batching still pays."""
SHORTEST_LOOK_S = 0.005
"""The shortest time over which a rate is measured, in seconds."""


class Coalescer:
    """Batches the events of one event loop. Code that forwards an event adds one to :attr:`passed`."""

    __slots__ = ("_call_soon", "_now", "_on", "_since", "_sleep", "_turned", "_turns", "passed")

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``call_soon`` is the event loop's. ``now`` and ``sleep`` are in seconds."""
        self._call_soon = call_soon
        self._now = now
        self._sleep = sleep
        self.passed = 0
        """Events since the rate was last measured."""
        self._on = False
        self._turns = 0
        self._turned = 0.0
        self._since = now()

    def look(self) -> None:
        """Begin to batch if events come fast enough. Called when a stream begins, and about once a second."""
        if self._on:
            return
        now = self._now()
        seconds = now - self._since
        if seconds < SHORTEST_LOOK_S:
            return
        worth = self.passed * GATHER_S >= WORTH * seconds
        self.passed, self._since = 0, now
        if worth:
            self._on, self._turns, self._turned = True, 0, now
            self._call_soon(self._turn)

    def _turn(self) -> None:
        """Runs before each poll of the event loop: sleep for what is left of :data:`GATHER_S`."""
        self._turns += 1
        if self._turns >= TURNS:
            if self.passed < TURNS:  # at most one event in each turn: batching gained nothing
                self._on, self._since = False, self._now()
                return
            self._turns = self.passed = 0
        rest = self._turned + GATHER_S - self._now()
        if rest > 0:
            self._sleep(rest)
        self._turned = self._now()
        self._call_soon(self._turn)
