"""Wrong API keys, counted by address: an address that sends many gets delayed answers and few lines in the log. Pure:
time comes in.

Only refusals are delayed. A valid key is let through at once from any address: many clients may share one (NAT, a
proxy), and one of them with a wrong key must not slow down the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address, ip_address, ip_network

from llmlaunch.gateway.limits.rates import TokenBucket

FREE = 20
"""Wrong keys of an address that are answered without a delay: this many at once, and as many again each minute."""
DELAY_S = 1.0
"""Seconds by which each further answer is delayed."""
DELAYED_PER_ADDRESS, DELAYED_MOST = 16, 256
"""Answers that are delayed at a time, for one address and in total; beyond that the connection is closed."""
ADDRESSES = 4096
"""Addresses that are counted separately; all others share one count."""
LOG_EVERY_S = 60.0
"""Seconds between two lines of the log about one address."""
LINES_MOST = 10
"""Addresses that are logged by name at a time."""
OTHERS = "other addresses"


class WrongKeyAction(Enum):
    """What to do with a request that has a wrong key. The value is its label in the metrics."""

    ANSWER = "at once"
    """Refuse it now."""
    DELAY = "held back"
    """Refuse it after DELAY_S."""
    CLOSE = "closed"
    """Refuse it now and close the connection."""


@dataclass(slots=True)
class _AddressRecord:
    bucket: TokenBucket
    delayed: int = 0
    unlogged: int = 0
    """Wrong keys beyond the free ones that are not logged yet."""
    logged_at: float = float("-inf")


class FailedKeys:
    """The wrong keys that one process has seen, by address."""

    def __init__(self) -> None:
        self._sources: dict[str, _AddressRecord] = {}
        self._delayed = 0

    def record(self, address: str, now: float) -> tuple[WrongKeyAction, str]:
        """Count a wrong key from ``address``: what to do, and the name to call :meth:`release` with once, after a DELAY."""
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
        """A delayed answer was sent, or its client left."""
        self._sources[name].delayed -= 1
        self._delayed -= 1

    def lines(self, now: float) -> Iterator[str]:
        """The lines to log now. Also forgets idle addresses. Call it about once a second."""
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
    """The range of addresses that counts as one client: an IPv4 address, or a /64 of IPv6."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else address
