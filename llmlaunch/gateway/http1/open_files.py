"""How near this process is to its limit of open files, and who makes room.

Every connection is a file, and so are a probe, the way to the controller and a log. The kernel hands out the lowest number
that is free: the number of a new connection tells how many files are open, at the price of a comparison. Near the limit
every new connection costs one that lies idle its place, the longest idle first; when none lies idle, new connections are
surplus: the gateway answers probes on them, and tells everybody else to come again.
"""

from __future__ import annotations

import resource
from collections.abc import Callable

from llmlaunch.http_server import BACKLOG

RESERVE_LEAST, RESERVE_MOST = 32, 2 * BACKLOG
NOBODY_S = 0.2
"""Seconds for which it is believed that nobody lies idle."""
CLOSING_S = 0.05
"""Seconds that it takes until what was closed has given its number back."""


class OpenFiles:
    """``close_idle(N)`` closes up to N connections that lie idle, and returns how many; :meth:`take` is told of each new one."""

    def __init__(
        self, close_idle: Callable[[int], int], now: Callable[[], float], limit: int | None = None
    ) -> None:
        """``limit``: of open files; None: this process's own."""
        self._close_idle = close_idle
        self._now = now
        self._credit = 0
        """Places that are about to be free."""
        self._credit_until = self._nobody_until = 0.0
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
        reserve = min(RESERVE_MOST, max(RESERVE_LEAST, most // 4))
        endless = most == resource.RLIM_INFINITY
        self.tight = 1 << 62 if endless else most - reserve
        """From this number on a new file needs another one's place."""
        self.full = 1 << 62 if endless else most - reserve // 2
        """From here on the files that are left are for probes and for the controller."""
        self.batch = reserve // 4
        """Connections that are closed at once: finding them means looking at all."""
        self.backlog = BACKLOG if endless else min(BACKLOG, reserve // 2)
        """Connections that may wait to be accepted. The event loop accepts all of them before anybody can give way."""

    def take(self, number: int) -> bool:
        """A new file has a ``number`` from :attr:`tight` on: make room for it. False: nobody gives way."""
        now = self._now()
        if self._credit and now < self._credit_until:
            self._credit -= 1
            return True
        if now < self._nobody_until:
            return False
        closed = self._close_idle(self.batch + number - self.tight)
        if not closed:
            self._nobody_until = now + NOBODY_S
            return False
        self._credit, self._credit_until = closed - 1, now + CLOSING_S
        return True
