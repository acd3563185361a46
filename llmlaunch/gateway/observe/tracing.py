"""OpenTelemetry: one server span for each request, between the client's span and the worker's.

Off, at no cost, unless the usual OTEL_* variables say where spans go
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/) and the packages of the extra
``llmlaunch[otel]`` are installed. Attributes are named after the semantic conventions for HTTP and generative AI where
these have a name. No text of prompts or answers is exported.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from llmlaunch import __version__, extras
from llmlaunch.gateway.observe.outcome import RequestOutcome
from llmlaunch.gateway.paths import EndpointKind
from llmlaunch.gateway.request import ClientRequest, Fields

log = logging.getLogger(__name__)

_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"
_QUIET = frozenset((EndpointKind.HEALTH, EndpointKind.READY, EndpointKind.METRICS))
"""Polled every few seconds by monitoring: no spans are made for these."""
_CONTEXT = frozenset((b"traceparent", b"tracestate"))
FLUSH_S = 2.0
"""Seconds at the end for exporting the last spans."""


class Tracing:
    """Spans of one process. ``provider`` is an OpenTelemetry SDK TracerProvider."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("llmlaunch.gateway", __version__)
        self._extract = TraceContextTextMapPropagator().extract
        self._server = SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)

    def fields(self, request: ClientRequest) -> Fields:
        """The header fields of ``request``, with our span as the parent of the worker's spans (W3C Trace Context)."""
        context = self._span(request).get_span_context()
        fields = [field for field in request.fields if field[0] not in _CONTEXT]
        parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        fields.append((b"traceparent", parent.encode()))
        if context.trace_state:
            fields.append((b"tracestate", context.trace_state.to_header().encode()))
        return fields

    def ended(self, outcome: RequestOutcome) -> str:
        """End the span of a request, and return the id of its trace; "" if it has none."""
        if outcome.request.endpoint.kind in _QUIET:
            return ""
        span = self._span(outcome.request)
        if span.is_recording():
            span.set_attributes(_attributes(outcome))
            if outcome.status >= 500:
                span.set_status(self._failed)
        span.end()
        return f"{span.get_span_context().trace_id:032x}"

    async def close(self) -> None:
        """Export the remaining spans within FLUSH_S; they are lost if the collector does not answer."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), FLUSH_S)
        except TimeoutError:
            log.warning("the last spans could not be delivered within %g s", FLUSH_S)

    def _span(self, request: ClientRequest) -> Any:
        if request.span is None:
            carrier = {name.decode(): request.field(name).decode("latin-1") for name in _CONTEXT}
            age_ns = int((time.monotonic() - request.received) * 1e9)
            request.span = self._tracer.start_span(
                f"{request.method.decode()} {request.label}",
                context=self._extract({name: value for name, value in carrier.items() if value}),
                kind=self._server,
                start_time=time.time_ns() - age_ns,
            )
        return request.span


def _attributes(outcome: RequestOutcome) -> dict[str, str | int | float]:
    request = outcome.request
    found: dict[str, str | int | float] = {
        "http.request.method": request.method.decode(),
        "http.route": request.label,
        "http.response.status_code": outcome.status,
        "llmlaunch.request_id": request.identity.decode("latin-1"),
    }
    if request.api_key.name:
        found["llmlaunch.api_key.name"] = request.api_key.name
    if not outcome.model:
        return found
    found["gen_ai.request.model"] = outcome.model
    found["llmlaunch.attempts"] = outcome.attempts
    if outcome.replica:
        found["llmlaunch.replica"] = outcome.replica
    if outcome.tokens is not None:
        found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"] = outcome.tokens
    if outcome.first_byte_s is not None:
        found["llmlaunch.time_to_first_byte"] = outcome.first_byte_s
    return found


def from_environment(environ: Mapping[str, str]) -> Tracing | None:
    """The tracing that the OTEL_* variables configure; None if they do not, or if it is not possible, which is logged."""
    if not extras.traces_wanted(environ):
        return None
    exporter = environ.get("OTEL_TRACES_EXPORTER", "") or "otlp"
    if exporter != "otlp":
        log.warning("no spans: OTEL_TRACES_EXPORTER=%s is not supported; use otlp or none", exporter)
        return None
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), _SPOKEN)
    if protocol != _SPOKEN:
        log.warning("no spans: the OTEL_* protocol %s is not supported; use %s", protocol, _SPOKEN)
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning(
            "no spans: OTEL_* asks for them, but OpenTelemetry is not installed; install it: %s",
            extras.command_here(extras.OTEL),
        )
        return None
    given = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if given else {"service.name": "llmlaunch-gateway"})
    try:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        log.warning("no spans: the OTEL_* variables are not valid: %s", error)
        return None
    log.info("spans go to %s", next(environ[name] for name in extras.TRACE_ENDPOINTS if environ.get(name)))
    return Tracing(provider)
