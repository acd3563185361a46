"""OpenTelemetry: a span for every request, between the client's and the worker's, at a collector of our own."""

from __future__ import annotations

import gzip
import logging
import re
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llmlaunch.gateway.observe import tracing
from tests.integration.gateway.fakes import Bench, Client, Seen, Talk, ask, running
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytest.importorskip("opentelemetry.sdk", reason="the extra llmlaunch[otel] is not installed")
service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "the text of a prompt"


class Collector:
    """An OTLP receiver over HTTP that keeps what comes."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.bodies = b""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                owner.take(body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, body: bytes) -> None:
        self.bodies += body
        for resource in service.ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(values(resource.resource.attributes))
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def span(self, request_id: str) -> Any:
        def found() -> list[Any]:
            return [s for s in self.spans if values(s.attributes)["llmlaunch.request_id"] == request_id]

        wait_until(found)
        assert len(found()) == 1
        return found()[0]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def values(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}


def settings(url: str, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "50", **more}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def bench(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("alice: sk-alice\n")
    keys.chmod(0o600)
    with running("--api-keys-file", str(keys), "--access-log", env=settings(collector.url)) as made:
        made.gateway.auth = {"Authorization": "Bearer sk-alice"}
        yield made


def post(bench: Bench, request_id: str, model: str = "m", **headers: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": SECRET}]}
    fields = {**bench.gateway.auth, "x-request-id": request_id, **headers}
    return ask(bench.port, "POST", "/v1/chat/completions", body, fields).status


def test_a_span_stands_between_client_and_worker(bench: Bench, collector: Collector) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    assert post(bench, "one", traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="vendor=1") == 200
    span = collector.span("one")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert (span.name, span.kind) == ("POST /v1/chat/completions", 2)  # SPAN_KIND_SERVER
    assert span.start_time_unix_nano < span.end_time_unix_nano
    told = values(span.attributes)
    assert told.pop("llmlaunch.time_to_first_byte") > 0
    assert told == {
        "http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": 200,
        "llmlaunch.request_id": "one", "llmlaunch.api_key.name": "alice", "llmlaunch.replica": worker.url,
        "llmlaunch.attempts": 1, "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 1,
        "gen_ai.usage.output_tokens": 2,
    }  # fmt: skip
    assert worker.seen[0].header("traceparent") == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert worker.seen[0].header("tracestate") == "vendor=1"
    assert worker.seen[0].head.count(b"traceparent") == 1
    assert collector.resources[0]["service.name"] == "llmlaunch-gateway"
    assert SECRET.encode() not in collector.bodies
    assert b"sk-alice" not in collector.bodies


def test_requests_on_one_connection_have_spans_of_their_own(bench: Bench, collector: Collector) -> None:
    """A head that was seen before is not parsed again: it must not bring the span of that one."""
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    with Client(bench.port) as client:
        for _ in range(3):
            client.post(
                {"model": "m"},
                extra=f"authorization: Bearer sk-alice\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\n",
            )
            assert client.answer().status == 200
    wait_until(lambda: len(collector.spans) == 3)
    parents = [str(seen.header("traceparent")) for seen in worker.seen]
    assert sorted(parents) == sorted(f"00-{TRACE}-{span.span_id.hex()}-01" for span in collector.spans)
    assert len(set(parents)) == 3


def _logged(bench: Bench, trace: str) -> bool:
    return any(trace in line for line in bench.gateway.output_lines)


def test_a_trace_begins_here_when_the_client_has_none(bench: Bench, collector: Collector) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    for number, broken in enumerate(
        ("", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01")
    ):
        headers = {"traceparent": broken} if broken else {}
        assert post(bench, f"r{number}", **headers) == 200
        span = collector.span(f"r{number}")
        assert not span.parent_span_id
        # Sampled; a second flag may say that the id is random (Trace Context, level 2).
        expected = f"00-{span.trace_id.hex()}-{span.span_id.hex()}-0[13]"
        assert re.fullmatch(expected, str(worker.seen[number].header("traceparent")))
        wait_until(partial(_logged, bench, span.trace_id.hex()))


def test_what_goes_wrong_is_told_and_what_machines_ask_is_not(bench: Bench, collector: Collector) -> None:
    def broken(talk: Talk, seen: Seen) -> None:
        talk.reply({"error": {"message": "out of memory"}}, status=500)

    bench.serve(
        bench.worker(broken).replica("m"),
        bench.worker(lambda talk, seen: talk.wait_for_peer_to_leave()).replica("slow"),
    )
    assert post(bench, "ill") == 500
    span = collector.span("ill")
    assert (span.status.code, values(span.attributes)["http.response.status_code"]) == (
        2,
        500,
    )  # STATUS_CODE_ERROR
    assert post(bench, "unknown", "nobody") == 404
    span = collector.span("unknown")
    assert span.status.code == 0
    assert "llmlaunch.replica" not in values(span.attributes)
    with Client(bench.port) as client:
        client.post({"model": "slow"}, extra="x-request-id: left\r\nauthorization: Bearer sk-alice\r\n")
        wait_until(lambda: bench.metric("in_flight") == 1)
    assert values(collector.span("left").attributes)["http.response.status_code"] == 499
    for path in ("/health", "/ready", "/metrics", "/v1/models"):
        ask(bench.port, "GET", path, headers={"x-request-id": "last"} | bench.gateway.auth)
    assert collector.span("last").name == "GET /v1/models"
    assert not any("/health" in span.name or "/metrics" in span.name for span in collector.spans)


def test_a_client_that_is_not_sampled_costs_no_span(bench: Bench, collector: Collector) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    assert post(bench, "no", traceparent=f"00-{TRACE}-{PARENT}-00") == 200
    assert post(bench, "yes") == 200
    collector.span("yes")
    assert len(collector.spans) == 1
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", str(worker.seen[0].header("traceparent")))


def test_every_process_tells_its_spans_and_the_last_ones_go_out(collector: Collector) -> None:
    env = settings(collector.url, OTEL_BSP_SCHEDULE_DELAY="60000", OTEL_SERVICE_NAME="ours")
    with running("--processes", "2", env=env) as bench:
        bench.serve(bench.worker().replica("m"))
        for number in range(20):
            assert post(bench, f"r{number}") == 200
        assert not collector.spans
        assert bench.gateway.stop() == 0
        assert len(collector.spans) >= 20
        assert len(collector.resources) >= 2
        assert {resource["service.name"] for resource in collector.resources} == {"ours"}


@pytest.mark.parametrize("hangs", [False, True], ids=["refuses", "hangs"])
def test_a_collector_that_is_ill_costs_spans_and_nothing_else(hangs: bool) -> None:
    port = free_port()
    with socket.socket() as sock:
        if hangs:
            sock.bind(("127.0.0.1", port))
            sock.listen()
        with running(env=settings(f"http://127.0.0.1:{port}")) as bench:
            bench.serve(bench.worker().replica("m"))
            for number in range(5):
                assert post(bench, f"r{number}") == 200
            assert bench.gateway.stop() == 0
            assert "Traceback" not in bench.gateway.log


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ""),
        (settings("http://x", OTEL_SDK_DISABLED="true"), ""),
        (settings("http://x", OTEL_TRACES_EXPORTER="none"), ""),
        (settings("http://x", OTEL_TRACES_EXPORTER="zipkin"), "zipkin"),
        (settings("http://x", OTEL_EXPORTER_OTLP_PROTOCOL="grpc"), "grpc"),
    ],
)  # fmt: skip
def test_when_there_are_no_spans(env: dict[str, str], why: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert tracing.from_environment(env) is None
    assert why in caplog.text
    assert bool(why) == bool(caplog.text)


def test_without_the_extra_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with caplog.at_level(logging.WARNING):
        assert tracing.from_environment(settings("http://x")) is None
    assert "llmlaunch[otel]" in caplog.text
