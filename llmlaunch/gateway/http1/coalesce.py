"""Taking up the events of many streams together, as network cards moderate their interrupts.

An event that comes alone costs the process a wake-up, and finds the caches cold. Where thousands come a second, the loop
does not wake for each: it looks for them every :data:`GATHER_S` seconds and finds several.
"""

from __future__ import annotations

import time
from collections.abc import Callable

GATHER_S = 0.0008
"""The longest that an event waits for others. Tokens of one answer are many times that apart."""
WORTH = 3
"""Events that must be expected in that time before it is waited for them."""
TURNS = 16
"""Between two judgements whether it still pays."""
SHORTEST_LOOK_S = 0.005
"""Over less than this no rate is told."""


class Coalescer:
    """Of one event loop. Whoever passes an event on adds one to :attr:`passed`."""

    __slots__ = ("_call_soon", "_now", "_on", "_since", "_sleep", "_turned", "_turns", "passed")

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``call_soon``: the loop's. ``now`` and ``sleep`` are in seconds."""
        self._call_soon = call_soon
        self._now = now
        self._sleep = sleep
        self.passed = 0
        """Events since the last judgement."""
        self._on = False
        self._turns = 0
        self._turned = 0.0
        self._since = now()

    def look(self) -> None:
        """Begin if events come fast enough. Called now and then: when a stream begins, and about once a second."""
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
        """Runs before each look of the loop for events: what the last ones left of the time is slept away."""
        self._turns += 1
        if self._turns >= TURNS:
            if self.passed < TURNS:  # one alone, or none: nothing was waited for
                self._on, self._since = False, self._now()
                return
            self._turns = self.passed = 0
        rest = self._turned + GATHER_S - self._now()
        if rest > 0:
            self._sleep(rest)
        self._turned = self._now()
        self._call_soon(self._turn)
