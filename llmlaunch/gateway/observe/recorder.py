"""Passes the outcome of each request to metrics, traces, the access log and the debug log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from llmlaunch.gateway.observe.access_log import AccessLog, line_of
from llmlaunch.gateway.observe.metrics import GatewayMetrics
from llmlaunch.gateway.observe.outcome import RequestOutcome
from llmlaunch.gateway.observe.tracing import Tracing
from llmlaunch.gateway.request import ClientRequest

log = logging.getLogger(__name__)


class RequestRecorder:
    """Records the outcome of each request. ``client_of`` returns the client's address, given the peer's and the request."""

    def __init__(
        self,
        metrics: GatewayMetrics,
        access_log: AccessLog | None,
        tracing: Tracing | None,
        client_of: Callable[[str, ClientRequest], str],
    ) -> None:
        self._metrics = metrics
        self._access_log = access_log
        self._tracing = tracing
        self._client_of = client_of
        self._debugs = log.isEnabledFor(logging.DEBUG)

    def record(self, outcome: RequestOutcome, quiet: bool = False) -> None:
        """Record a request that has ended. ``quiet``: without a line in the access log."""
        self._metrics.ended(outcome)
        trace = "" if self._tracing is None else self._tracing.ended(outcome)
        if self._access_log is not None and not quiet:
            client = self._client_of(outcome.peer, outcome.request)
            self._access_log.add(line_of(outcome, client, trace, time.time()))
        if self._debugs:
            request = outcome.request
            log.debug(
                "%s %s %s model=%r %d %.3f s", request.identity.decode(), request.method.decode(), request.label,
                outcome.counted_model, outcome.status, outcome.duration_s,
            )  # fmt: skip

    def close(self, seconds: float) -> None:
        """Write the rest of the access log; give up after ``seconds``."""
        if self._access_log is not None:
            self._access_log.close(seconds)
