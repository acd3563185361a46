"""The client's address behind proxies: ``X-Forwarded-For``, as far as it can be trusted. Pure.

Each proxy appends the address that it sees. So the right-most address that is not a trusted proxy's is the client's;
anything to the left of it could be forged.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from llmlaunch.common.addresses import is_loopback, parse
from llmlaunch.errors import UsageError
from llmlaunch.gateway.request import ClientRequest

Network = IPv4Network | IPv6Network
HOPS_MOST = 32
"""Addresses of ``X-Forwarded-For`` that are looked at, from the right."""
_LONGEST = 64
"""Characters of the longest address with a port."""


def networks(texts: Iterable[str], what: str) -> tuple[Network, ...]:
    """Parse addresses, and networks in CIDR notation. Raises UsageError; ``what`` names their source in the message."""
    found = []
    for text in texts:
        try:
            found.append(ip_network(text.strip(), strict=False))
        except ValueError:
            raise UsageError(
                f"{what}: {text!r} is not an address or a network",
                hint="write 10.0.0.7, 10.0.0.0/8 or fd00::/8",
            ) from None
    return tuple(found)


def client_of(peer: str, forwarded: str, trusted: tuple[Network, ...]) -> str:
    """The client's address. ``peer`` is the address of the connection, ``forwarded`` the header's values, joined.

    The header is ignored if the peer is not a trusted proxy.
    """
    here = _address(peer)
    if here is None or not _trusts(here, trusted):
        return here or peer
    for hop in reversed(forwarded[-HOPS_MOST * _LONGEST :].split(",")[-HOPS_MOST:]):
        address = _address(hop)
        if address is None:
            return here  # not an address: what stands to the left of it cannot be trusted
        here = address
        if not _trusts(here, trusted):
            return here
    return here


class ClientAddresses:
    """Finds clients' addresses behind the ``trusted`` proxies."""

    def __init__(self, trusted: tuple[Network, ...]) -> None:
        self._trusted = trusted

    def of(self, peer: str, request: ClientRequest) -> str:
        """The address of the client of ``request``. ``peer`` is the address of its connection."""
        if not self._trusted:
            return peer
        return client_of(peer, request.all_of(b"x-forwarded-for"), self._trusted)

    def is_local(self, request: ClientRequest) -> bool:
        """Whether the client is on this machine, rather than a proxy on this machine that forwards a remote client."""
        if not request.local or not self._trusted:
            return request.local
        forwarded = request.all_of(b"x-forwarded-for")
        found = (client_of(peer, forwarded, self._trusted) for peer in ("127.0.0.1", "::1"))
        return all(map(is_loopback, found))


def _address(text: str) -> str | None:
    """The address without port and zone, IPv4-mapped IPv6 as IPv4; None: it is not an address."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    found = parse(text.partition("%")[0])
    return None if found is None else str(found)


def _trusts(address: str, trusted: tuple[Network, ...]) -> bool:
    found = ip_address(address)
    return any(found in network for network in trusted)
