"""Requests that have ended, as ``gateway/observe`` is told of them."""

from __future__ import annotations

from llmlaunch.gateway.limits.api_key import ApiKey
from llmlaunch.gateway.observe.outcome import RequestOutcome
from llmlaunch.gateway.paths import ApiEndpoint, EndpointKind
from llmlaunch.gateway.request import ClientRequest


def outcome(
    path: str,
    model: str,
    replica: str,
    key: str,
    status: int,
    seconds: float = 0.1,
    tokens: tuple[int, int] | None = None,
) -> RequestOutcome:
    """Of a request to ``path`` with the API key named ``key``; ``tokens``: of an answer that tells any."""
    endpoint = ApiEndpoint(EndpointKind.PROXY, (b"POST",), path, has_usage=tokens is not None)
    request = ClientRequest(b"POST", path.encode(), b"", True, True, 0.0, b"req-1")
    request.endpoint, request.api_key = endpoint, ApiKey(key)
    return RequestOutcome(
        request, status, seconds, "127.0.0.1", model, model, replica, 1, seconds / 2, tokens
    )
