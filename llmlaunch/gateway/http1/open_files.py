"""How close this process is to its limit of open files, and which connections give way.

Every connection is a file, and so are a health probe, the connection to the controller and a log. The kernel assigns the
lowest free descriptor, so the descriptor of a new connection shows how many files are open, for the price of a
comparison. Near the limit each new connection takes the place of an idle one, the longest idle first. When none is idle,
new connections are surplus: the gateway answers health probes on them and asks other clients to try again.
"""

from __future__ import annotations

import resource
from collections.abc import Callable

from llmlaunch.http_server import BACKLOG

MIN_RESERVE, MAX_RESERVE = 32, 2 * BACKLOG
NONE_IDLE_S = 0.2
"""Seconds to wait before idle connections are looked for again after none was found."""
CLOSING_S = 0.05
"""Seconds until the descriptor of a closed connection is free."""


class OpenFiles:
    """``close_idle(N)`` closes up to N idle connections and returns how many. Call :meth:`make_room` for each new connection
    from :attr:`evict_from` on."""

    def __init__(
        self, close_idle: Callable[[int], int], now: Callable[[], float], limit: int | None = None
    ) -> None:
        """``limit``: the number of files that may be open; None: the soft RLIMIT_NOFILE of this process."""
        self._close_idle = close_idle
        self._now = now
        self._credit = 0
        """Descriptors that are about to be free."""
        self._credit_until = self._none_idle_until = 0.0
        if limit is None:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        reserve = min(MAX_RESERVE, max(MIN_RESERVE, limit // 4))
        unlimited = limit == resource.RLIM_INFINITY
        self.evict_from = 1 << 62 if unlimited else limit - reserve
        """A new connection with this descriptor, or a higher one, takes the place of another."""
        self.reserved_from = 1 << 62 if unlimited else limit - reserve // 2
        """Descriptors from this one on are kept for health probes and for the controller."""
        self.batch = reserve // 4
        """Connections to close at a time, because finding idle ones means looking at all of them."""
        self.backlog = BACKLOG if unlimited else min(BACKLOG, reserve // 2)
        """The backlog to listen with. The event loop accepts all of it before any connection can give way."""

    def make_room(self, number: int) -> bool:
        """Make room for a new connection with the descriptor ``number``. False: no connection is idle."""
        now = self._now()
        if self._credit and now < self._credit_until:
            self._credit -= 1
            return True
        if now < self._none_idle_until:
            return False
        closed = self._close_idle(self.batch + number - self.evict_from)
        if not closed:
            self._none_idle_until = now + NONE_IDLE_S
            return False
        self._credit, self._credit_until = closed - 1, now + CLOSING_S
        return True
