"""What an operator sees: the access log and the token counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.fakes import Bench, Client, Seen, Talk, ask, chat, running
from tests.integration.gateway.test_process import bearer
from tests.support.ports import free_port
from tests.support.waiting import wait_until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "the text of a prompt"


@pytest.fixture(scope="module")
def logging_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("alice: sk-alice\n")
    keys.chmod(0o600)
    with running("--access-log", "--api-keys-file", str(keys)) as bench:
        yield bench


def lines(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in list(bench.gateway.output_lines)]


def line_of(bench: Bench, request_id: str) -> dict[str, Any]:
    wait_until(lambda: any(line["request_id"] == request_id for line in lines(bench)))
    found = [line for line in lines(bench) if line["request_id"] == request_id]
    assert len(found) == 1
    return found[0]


def headers(request_id: str, **more: str) -> dict[str, str]:
    return {**bearer("sk-alice"), "x-request-id": request_id, **more}


def ask_chat(bench: Bench, request_id: str, model: str = "m", **more: Any) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": SECRET}], **more}
    return ask(
        bench.port, "POST", "/v1/chat/completions", body, headers(request_id, traceparent=TRACE)
    ).status


def test_a_line_for_every_request(logging_bench: Bench) -> None:
    bench = logging_bench
    worker = bench.worker()
    bench.serve(worker.replica("m"))
    assert ask_chat(bench, "one") == 200
    line = line_of(bench, "one")
    assert line.pop("time").endswith("Z")
    assert 0 < line.pop("first_byte_s") <= line.pop("duration_s")
    assert line == {
        "request_id": "one", "trace_id": TRACE[3:35], "client": "127.0.0.1", "key": "alice", "method": "POST",
        "path": "/v1/chat/completions",
        "model": "m", "replica": worker.url, "status": 200, "prompt_tokens": 1, "completion_tokens": 2, "attempts": 1,
    }  # fmt: skip
    assert worker.seen[0].header("traceparent") == TRACE
    assert ask_chat(bench, "two", model="unknown" * 100) == 404
    line = line_of(bench, "two")
    assert (line["status"], len(line["model"])) == (404, 200)
    assert ask(bench.port, "GET", "/v1/models", headers={"x-request-id": "three"}).status == 401
    line = line_of(bench, "three")
    assert (line["path"], line["status"], "key" in line, "model" in line) == ("/v1/models", 401, False, False)
    everything = "".join(bench.gateway.output_lines)
    assert SECRET not in everything
    assert "sk-" not in everything


def test_a_retry_and_a_client_that_leaves_are_told(logging_bench: Bench) -> None:
    bench = logging_bench

    def never(talk: Talk, seen: Seen) -> None:
        talk.wait_for_peer_to_leave()

    dead = f"http://127.0.0.1:{free_port()}"
    bench.serve({"worker_name": dead, "model_names": ["m"]}, bench.worker().replica("m", queue_length=5))
    assert ask_chat(bench, "again") == 200
    assert line_of(bench, "again")["attempts"] == 2
    worker = bench.worker(never)
    bench.serve(worker.replica("slow"))
    with Client(bench.port) as client:
        client.post({"model": "slow"}, extra="x-request-id: left\r\nauthorization: Bearer sk-alice\r\n")
        wait_until(lambda: worker.seen)
    assert line_of(bench, "left")["status"] == 499


def test_tokens_are_counted_by_model_and_key(logging_bench: Bench) -> None:
    bench = logging_bench

    def stream(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        for number in range(5):
            talk.event({"choices": [{"delta": {"content": str(number)}}]})
        if seen.json.get("stream_options"):
            talk.event({"choices": [], "usage": {"prompt_tokens": 40, "completion_tokens": 5}})
        talk.end_stream()

    bench.serve(bench.worker(stream).replica("s"), bench.worker().replica("t"))
    assert ask_chat(bench, "s1", "s", stream=True, stream_options={"include_usage": True}) == 200
    assert ask_chat(bench, "s2", "s", stream=True) == 200
    assert ask_chat(bench, "t1", "t") == 200
    assert bench.metric("prompt_tokens_total", model="s", key="alice") == 40
    assert bench.metric("completion_tokens_total", model="s", key="alice") == 5
    assert bench.metric("completion_tokens_total", model="t", key="alice") == 2
    assert bench.metric("usage_untold_total", model="s") == 1
    assert bench.metric("requests_total", model="s", key="alice", status="200") == 2
    assert line_of(bench, "s1")["completion_tokens"] == 5
    assert "completion_tokens" not in line_of(bench, "s2")


def test_no_log_unless_it_is_asked_for(bench: Bench, tmp_path: Path) -> None:
    bench.serve(bench.worker().replica("m"))
    assert chat(bench.port, "m").status == 200
    assert bench.gateway.output_lines == []


def test_the_last_lines_are_written_before_the_end() -> None:
    with running("--access-log") as bench:
        bench.serve(bench.worker().replica("m"))
        ask(bench.port, "POST", "/v1/chat/completions", {"model": "m"}, {"x-request-id": "last"})
        assert bench.gateway.stop() == 0
        assert '"last"' in bench.gateway.output_lines[-1]


def test_an_access_log_that_nobody_reads_holds_up_no_request() -> None:
    with running("--access-log", read_output=False) as bench:
        bench.serve(bench.worker().replica("m"))
        for _ in range(400):  # of 400 bytes and more: twice what a pipe holds
            assert chat(bench.port, "x" * 300).status == 404
        assert chat(bench.port, "m").status == 200
        assert bench.gateway.stop() == 0
        assert "its last lines are dropped" in bench.gateway.log
