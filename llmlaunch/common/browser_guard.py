"""Whether a request comes from a web page that must not use this server. Pure.

A server on a loopback address without keys trusts whoever can reach it. Everybody's browser can, on behalf of any page:

- A page may send a POST to any address without asking first, as long as its body is called text/plain or a form. Browsers
  tell where such a request comes from: ``Origin``, and ``Sec-Fetch-Site`` where they know it (Fetch, W3C Fetch Metadata).
- A page whose own name suddenly stands for 127.0.0.1 is of the server's origin, and may read the answers (DNS
  rebinding). Such a request says the page's name in its ``Host``, where a loopback address or "localhost" would stand.

Programs that are no browsers send neither field, and reach a server by a name that it knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from llmlaunch.common import addresses
from llmlaunch.common.addresses import is_loopback

ANY = "*"
FORM = "application/x-www-form-urlencoded"
UPLOAD = "multipart/form-data"
_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The HTTP response to a rejected caller: status, and the code and message of the error."""

    status: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Door:
    """Whose requests a server accepts. See :func:`door`."""

    names: frozenset[str] = frozenset()
    """Of the server, as :func:`name_of` gives them, beside localhost."""
    strict: bool = False
    """Whether ``Host`` must say one of them, or a loopback address."""
    origins: frozenset[str] = frozenset()
    """Of pages that may call, as ``Origin`` says them."""
    remedy: str = ""
    """How to allow another Host, in words."""

    def refusal(self, host: str, origin: str, site: str) -> Refusal | None:
        """Why a request with these fields (``Host``, ``Origin``, ``Sec-Fetch-Site``; "" where there is none) is refused."""
        return _judged(self, host, origin, site)

    def knows(self, host: str) -> bool:
        """Whether a server that is strict answers to ``host``. Without one no browser has sent the request."""
        name = name_of(host)
        return not name or is_loopback(name) or name in self.names

    def points_here(self, host: str) -> bool:
        """Whether nobody's name server could have made ``host`` stand for this server: it is an address, or known."""
        return self.knows(host) or _is_address(name_of(host))

    def trusts(self, origin: str) -> bool:
        """Whether pages of ``origin`` may call the server from a browser."""
        return ANY in self.origins or origin in self.origins


def door(
    bound: str,
    *,
    names: Iterable[str] = (),
    origins: Iterable[str] = (),
    keys: bool = False,
    remedy: str = "",
) -> Door:
    """For a server that listens on the address ``bound``, and may be called by ``names`` beside that.

    Whoever has to show a key cannot be a stranger's page, and what other machines reach is known to them by names that
    nobody here can list: there any Host will do.
    """
    known = frozenset(name_of(name) for name in names if name)
    strict = not keys and ANY not in known and is_loopback(name_of_address(bound))
    return Door(known, strict, frozenset(origins), remedy)


@lru_cache(maxsize=256)
def _judged(door: Door, host: str, origin: str, site: str) -> Refusal | None:
    if door.strict and not door.knows(host):
        message = (
            f"This server is not known as {host[:100]!r}; it answers to localhost and loopback addresses."
        )
        return Refusal(403, "host_not_allowed", f"{message} {door.remedy}".rstrip())
    if origin and not (door.trusts(origin) or _own(origin, host)):
        return Refusal(403, "origin_not_allowed", f"Pages of {origin[:100]} may not use this server.")
    if site.strip().lower() == "cross-site" and not door.trusts(origin):
        return Refusal(403, "origin_not_allowed", "Pages of other sites may not use this server.")
    return None


def not_json(content_type: str, origin: str, site: str, *, forms: bool = False) -> Refusal | None:
    """Why a body of that ``Content-Type`` is not taken for JSON. A body that says nothing of its type is.

    So is what curl's ``-d`` sends, which calls every body a form, where no browser has sent it: JSON under that name is
    beyond HTML's forms, which escape its braces, and scripts never come without an ``Origin``. A form of text/plain does
    write JSON, and old browsers send it without one.

    ``forms``: the endpoint takes files, so a form of multipart/form-data will do as well.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if (kind == FORM and not (origin or site)) or (kind == UPLOAD and forms):
        return None
    if not kind or kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return None
    if forms:
        message = f"The body is sent as {kind[:100]}; it must be a form ({UPLOAD}; curl: -F) or JSON."
        return Refusal(415, "unsupported_media_type", message)
    return Refusal(
        415,
        "unsupported_media_type",
        f"The body is sent as {kind[:100]}; it must be JSON. Add the header Content-Type: application/json "
        "(curl: -H 'Content-Type: application/json').",
    )


def name_of(host: str) -> str:
    """The name or address in ``Host``: without port, brackets and the dot at a name's end, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        address, _, rest = host[1:].partition("]")
        return address if not rest or rest.startswith(":") else host
    if host.count(":") == 1:
        host = host.partition(":")[0]
    return host.removesuffix(".")


def name_of_address(bound: str) -> str:
    """An address that a socket is bound to, without the zone of a link."""
    return bound.strip("[]").partition("%")[0]


def _is_address(name: str) -> bool:
    """Whether ``name`` (see :func:`name_of`) is an IP address: what no name server can point elsewhere."""
    return addresses.parse(name) is not None


def _own(origin: str, host: str) -> bool:
    """Whether a page of ``origin`` came from this server itself. ``Host`` leaves out the port that the scheme has."""
    scheme, separator, authority = origin.strip().lower().partition("://")
    port = _PORTS.get(scheme)
    if not separator or port is None or not host:
        return False
    return _whole(authority, port) == _whole(host, port)


def _whole(authority: str, port: str) -> tuple[str, str]:
    authority = authority.strip().lower()
    tail = authority.rpartition("]")[2] if authority.startswith("[") else authority
    return name_of(authority), tail.partition(":")[2] or port
