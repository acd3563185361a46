"""Wrong API keys, counted by address: whoever sends many waits for each answer, and fills no log. Pure: time comes in.

Only what is refused waits. A right key is let through at once from any address: many clients may stand behind one
(NAT, a proxy), and one of them with a wrong key must not be the others' trouble.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, ip_address, ip_network

from llmlaunch.gateway.limits.rates import TokenBucket

FREE = 20
"""Wrong keys at once, and again a minute, that are answered like everything else."""
DELAY_S = 1.0
"""Seconds that an answer beyond is held back."""
DELAYED_PER_ADDRESS, DELAYED_MOST = 16, 256
"""Answers that are held back at a time, of one address and in all; beyond, the connection is closed."""
ADDRESSES = 4096
"""Addresses that are told apart."""
LOG_EVERY_S = 60.0
"""Seconds between two lines of the log about one address."""
LINES_MOST = 10
"""Addresses that are told of at a time."""
OTHERS = "other addresses"


class WrongKeyAction(Enum):
    ANSWER = "at once"
    DELAY = "held back"
    CLOSE = "closed"


@dataclass(slots=True)
class _AddressRecord:
    bucket: TokenBucket
    delayed: int = 0
    unlogged: int = 0
    """Wrong keys beyond the free ones that nobody was told of."""
    logged_at: float = float("-inf")


class FailedKeys:
    """The table. One process has one."""

    def __init__(self) -> None:
        self._sources: dict[str, _AddressRecord] = {}
        self._delayed = 0

    def record(self, address: str, now: float) -> tuple[WrongKeyAction, str]:
        """A wrong key came from ``address``: what to do, and the name to :meth:`release` with, once, after HOLD."""
        name = _network(address)
        if name not in self._sources and len(self._sources) >= ADDRESSES:
            name = OTHERS
        source = self._sources.setdefault(name, _AddressRecord(TokenBucket(FREE, now)))
        if source.bucket.fill(FREE, now) >= 1:
            source.bucket.level -= 1
            return WrongKeyAction.ANSWER, name
        source.unlogged += 1
        if source.delayed >= DELAYED_PER_ADDRESS or self._delayed >= DELAYED_MOST:
            return WrongKeyAction.CLOSE, name
        source.delayed += 1
        self._delayed += 1
        return WrongKeyAction.DELAY, name

    def release(self, name: str) -> None:
        """An answer is not held back any more."""
        self._sources[name].delayed -= 1
        self._delayed -= 1

    def lines(self, now: float) -> Iterator[str]:
        """What is to be logged now; forgets who has been quiet. Call it about once a second."""
        due = [
            (name, s) for name, s in self._sources.items() if s.unlogged and now - s.logged_at >= LOG_EVERY_S
        ]
        due.sort(key=lambda pair: -pair[1].unlogged)
        for name, source in due[:LINES_MOST]:
            yield f"{source.unlogged} wrong API keys from {name}: further refusals are delayed and not logged one by one"
        if rest := due[LINES_MOST:]:
            yield f"{sum(s.unlogged for _, s in rest)} wrong API keys from {len(rest)} further addresses"
        for _, source in due:
            source.unlogged, source.logged_at = 0, now
        for name, source in list(self._sources.items()):
            if not source.delayed and not source.unlogged and source.bucket.fill(FREE, now) >= FREE:
                del self._sources[name]


def _network(address: str) -> str:
    """What one client may have of addresses: one of IPv4, a /64 of IPv6."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else address
