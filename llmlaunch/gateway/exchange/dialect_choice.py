"""Whether a request in another dialect than OpenAI's is translated, which depends on the replica that has it."""

from __future__ import annotations

from llmlaunch.gateway.dialects.dialect import Dialect, TranslatedRequest
from llmlaunch.gateway.failures import InvalidResponse
from llmlaunch.gateway.http1.framing import ResponseHead
from llmlaunch.gateway.payload.content_rewriter import ContentRewriter
from llmlaunch.gateway.request import ClientRequest
from llmlaunch.gateway.routing.health.replica_health import ReplicaHealth
from llmlaunch.gateway.routing.route_table import FASTCHAT, RoutedReplica

_NO_SUCH_ENDPOINT = frozenset((404, 405, 501))


class DialectChoice:
    """Of one request. A replica is asked in the dialect until it says that it has no such endpoint; that is remembered
    with its health, so that only its first request is sent twice."""

    __slots__ = ("_dialect", "_health", "_request", "_translated", "translates")

    def __init__(self, dialect: Dialect, request: ClientRequest) -> None:
        self._dialect = dialect
        self._request = request
        self._health: ReplicaHealth
        self._translated: TranslatedRequest | None = None
        self.translates = False
        """The request goes to its present replica in OpenAI's API."""

    @property
    def path(self) -> bytes:
        """The endpoint at the replica that has the request."""
        if self.translates and self._translated is not None:
            return self._translated.path
        return self._request.endpoint.upstream

    def outgoing(self, replica: RoutedReplica, health: ReplicaHealth) -> tuple[bytes, bytes]:
        """The path and the body for ``replica``. Sets :attr:`translates`. Raises InvalidBody."""
        request = self._request
        self._health = health
        self.translates = (
            not self._dialect.native
            or replica.engine == FASTCHAT
            or request.endpoint.upstream in health.lacks
        )
        if not self.translates:
            return request.upstream_path, request.body
        if self._translated is None:
            self._translated = self._dialect.request(request.body)
        return self._translated.path, self._translated.body

    def is_missing(self, status: int) -> bool:
        """Whether ``status`` says that the replica has no such endpoint: then it has to be asked in OpenAI's API."""
        if self.translates:
            if status == 404:  # it is not the path that the replica does not know
                self._health.lacks -= {self._request.endpoint.upstream}
            return False
        if status not in _NO_SUCH_ENDPOINT:
            return False
        self._health.lacks |= {self._request.endpoint.upstream}
        return True

    def native_error(self, head: ResponseHead) -> ContentRewriter | None:
        """The rewriter of the error that begins with ``head`` and was not translated; None if it is compressed."""
        return (
            None
            if head.get(b"content-encoding") not in (b"", b"identity")
            else self._dialect.native_error(head.status)
        )

    def translator(self, head: ResponseHead) -> ContentRewriter:
        """The translator of the response that begins with ``head``. Raises InvalidResponse."""
        if self._translated is None:
            raise InvalidResponse("it belongs to a request that was not translated")
        if head.get(b"content-encoding") not in (b"", b"identity"):
            raise InvalidResponse("it is compressed, although the request did not allow that")
        media_type = head.get(b"content-type").partition(b";")[0].strip().lower()
        return self._translated.translator(head.status, media_type)
