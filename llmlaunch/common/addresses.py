"""Hosts as they are written: IP addresses and names, what only this machine reaches, which listeners clash. Pure.

Nothing here asks a name server. An IPv4 address mapped into IPv6 (``::ffff:127.0.0.1``, RFC 4291, 2.5.5.2) counts as that
IPv4 address.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

IPAddress = IPv4Address | IPv6Address
_LOCALHOST = "localhost"
_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # compared with, never bound


def without_brackets(host: str) -> str:
    """``[::1]`` → ``::1``."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def bracketed(host: str) -> str:
    """``::1`` → ``[::1]``, as a port behind it needs (RFC 3986, 3.2.2); any other host as it is."""
    return f"[{host}]" if ":" in host else host


def parse(host: str) -> IPAddress | None:
    """The IP address that ``host`` is, brackets allowed; None for a name. An IPv6 address keeps its zone."""
    try:
        address = ip_address(without_brackets(host))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether ``host`` stands for this machine alone, whatever a name server says: a loopback address, or ``localhost``."""
    address = parse(host)
    return host.lower() == _LOCALHOST if address is None else address.is_loopback


def is_wildcard(host: str) -> bool:
    """Whether a server that listens on ``host`` listens on every address of the machine."""
    return without_brackets(host) in _REACHABLE


def url(host: str, port: int) -> str:
    """``http://host:port``; an IPv6 address gets brackets (RFC 3986, 3.2.2), its zone an escaped ``%`` (RFC 6874)."""
    bare = without_brackets(host)
    return f"http://[{bare.replace('%', '%25')}]:{port}" if ":" in bare else f"http://{bare}:{port}"


def local_url(host: str, port: int) -> str:
    """The :func:`url` by which this machine reaches a server that listens on ``host``: a wildcard becomes loopback."""
    return url(_REACHABLE.get(without_brackets(host), host), port)


def overlap(a: str | IPAddress, b: str | IPAddress) -> bool:
    """Whether a listener on ``a`` may keep another one off the same port on ``b``. Both are hosts or parsed addresses.

    ``0.0.0.0`` covers all of IPv4. ``::`` covers IPv4 too, unless its socket says IPV6_V6ONLY. ``localhost`` is 127.0.0.1,
    where servers listen that know only one address; other names clash with themselves and with the wildcards alone.
    """
    x, y = (_listens_on(host) if isinstance(host, str) else host for host in (a, b))
    return x == y or _covers(x, y) or _covers(y, x)


def _listens_on(host: str) -> IPAddress | str:
    name = host.lower().removesuffix(".")
    if name == _LOCALHOST:
        name = "127.0.0.1"
    return parse(name or "0.0.0.0") or name  # noqa: S104  # compared with, never bound


def _covers(wildcard: IPAddress | str, other: IPAddress | str) -> bool:
    if isinstance(wildcard, str) or not wildcard.is_unspecified:
        return False
    return wildcard.version == 6 or isinstance(other, str) or other.version == 4
