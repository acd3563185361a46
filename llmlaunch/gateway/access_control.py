"""Access control: API keys, origins, paths and methods are checked before a request's body is read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from llmlaunch.common.browser_guard import Door, not_json
from llmlaunch.gateway import errors
from llmlaunch.gateway.client_address import ClientAddresses
from llmlaunch.gateway.errors import Reply
from llmlaunch.gateway.limits.keys import KeyRing
from llmlaunch.gateway.paths import ApiEndpoint, EndpointKind, endpoint, nearest_path, without_spare_slashes
from llmlaunch.gateway.request import ClientRequest

_PREFLIGHT_SECONDS = 600
_OLLAMAS = frozenset(
    (b"/api/chat", b"/api/generate", b"/api/embed", b"/api/embeddings", b"/api/tags", b"/api/show")
)
_FOR_SURPLUS = frozenset((EndpointKind.HEALTH, EndpointKind.READY, EndpointKind.METRICS))


class AccessControl:
    """``door``: which hosts and origins are accepted. ``keys``: None: no API key is needed.

    ``more``: endpoints by path, beside those of ``paths``.
    """

    def __init__(
        self,
        door: Door,
        keys: KeyRing | None,
        addresses: ClientAddresses,
        more: Mapping[bytes, ApiEndpoint] = MappingProxyType({}),
    ) -> None:
        self._more = more
        self._door = door
        self._keys = keys
        self._addresses = addresses
        self._origins = frozenset(origin.encode() for origin in door.origins)

    def screen(self, request: ClientRequest) -> Reply | None:
        """The reply to a request that is refused, or answered without its body; None: it may go on.

        Sets ``request.endpoint`` and ``request.api_key``.
        """
        path = request.path
        found = endpoint(path)
        if found.kind is EndpointKind.UNKNOWN and self._more:
            found = self._more.get(without_spare_slashes(path), found)
        request.endpoint = found
        needs_key = self._keys is not None and self._needs_key(request)
        host, origin, site = _browser_fields(request)
        # A request with a valid key needs no check of its origin: browsers do not add keys by themselves.
        if not needs_key or request.method == b"OPTIONS":
            refusal = self._door.refusal(host, origin, site)
            if refusal is not None:
                return errors.refused_by_browser_guard(refusal)
        if request.method == b"OPTIONS":
            return self._options(request)
        if needs_key and self._keys is not None:
            api_key = self._keys.find(request.presented_key)
            if api_key is None:
                return errors.invalid_api_key(missing=not request.presented_key)
            request.api_key = api_key
        if found.kind is EndpointKind.UNKNOWN:
            return _unknown_path(path)
        if request.method not in found.methods:
            return errors.method_not_allowed(request.method.decode(), path.decode("latin-1"), found.allowed)
        if request.method == b"POST":
            media_type = request.field(b"content-type").decode("latin-1")
            wrong = not_json(media_type, origin, site, forms=found.takes_forms)
            if wrong is not None:
                return errors.refused_by_browser_guard(wrong)
        return None

    def screen_surplus(self, request: ClientRequest) -> Reply | None:
        """Like :meth:`screen`, for a connection beyond the limit of open files: one request for health or metrics."""
        request.keep_alive = False
        reply = self.screen(request)
        return reply if request.endpoint.kind in _FOR_SURPLUS else errors.too_many_connections()

    def cors_fields(self, origin: bytes) -> bytes:
        """Header lines that let a page from ``origin`` read the response; empty if it may not."""
        if not self._origins or not origin or not (origin in self._origins or b"*" in self._origins):
            return b""
        return (
            b"access-control-allow-origin: %b\r\nvary: origin\r\n"
            b"access-control-expose-headers: x-request-id, retry-after\r\n" % origin
        )

    def refresh(self) -> bool:
        """Reload the keys if they changed. True: they did, so earlier decisions of :meth:`screen` do not hold any more."""
        return self._keys is not None and self._keys.refresh()

    def _needs_key(self, request: ClientRequest) -> bool:
        found = request.endpoint
        if found.kind is EndpointKind.UNKNOWN:
            return request.path.startswith((b"/v1", b"/api"))
        if found.kind is EndpointKind.METRICS and self._addresses.is_local(request):
            return not self._door.points_here(_browser_fields(request)[0])
        return found.needs_key

    def _options(self, request: ClientRequest) -> Reply:
        if request.endpoint.kind is EndpointKind.UNKNOWN and request.path != b"*":
            return _unknown_path(request.path)
        allowed = b"GET, HEAD, POST, OPTIONS" if request.path == b"*" else request.endpoint.allowed.encode()
        fields = b"allow: %b\r\n" % allowed
        if self.cors_fields(request.origin):
            wanted = (
                request.field(b"access-control-request-headers") or b"authorization, x-api-key, content-type"
            )
            fields += (
                b"access-control-allow-methods: %b\r\naccess-control-allow-headers: %b\r\n"
                b"access-control-max-age: %d\r\n" % (allowed, wanted, _PREFLIGHT_SECONDS)
            )
        return Reply(204, b"", fields)


def _unknown_path(path: bytes) -> Reply:
    text = path.decode("latin-1")
    if path in _OLLAMAS:
        return errors.ollama_is_off(text)
    return errors.unknown_path(text, nearest_path(text))


def _browser_fields(request: ClientRequest) -> tuple[str, str, str]:
    """Host, Origin and Sec-Fetch-Site, by which ``browser_guard`` recognises browsers and their pages."""
    host, site = request.field(b"host"), request.field(b"sec-fetch-site")
    return host.strip().decode("latin-1"), request.origin.decode("latin-1"), site.decode("latin-1")
