"""What one client's 10 MB do to another's stream, and to those who ask whether the worker lives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.worker.server import SMOLLM2, Worker, started
from tests.support.waiting import wait_until

PROBE_TIMEOUT_S = 2.0
"""That the supervisor gives a worker to say that it lives."""
TEXT = "some words " * 1_000_000


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with started(SMOLLM2, "--model-names", "smollm2") as running:
        yield running


class Stream(threading.Thread):
    """Another client, whose story goes on until it is closed."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.events, self.over, self.failure = 0, threading.Event(), ""
        self._worker = worker

    def run(self) -> None:
        message = {"role": "user", "content": "Write a long story about the sea."}
        body = {"model": "smollm2", "messages": [message], "stream": True, "ignore_eos": True}
        try:
            with (
                self._worker.client() as http,
                http.stream("POST", "/v1/chat/completions", json=body) as answer,
            ):
                for line in answer.iter_lines():
                    self.events += line.startswith("data: {")
                    if self.over.is_set():
                        return
                self.failure = "it ended"
        except httpx.HTTPError as error:
            self.failure = repr(error)


class Prober(threading.Thread):
    """Asks as the supervisor does, and more often."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.answers, self.over, self.failure = 0, threading.Event(), ""
        self._worker = worker

    def run(self) -> None:
        while not self.over.wait(0.02):
            try:
                httpx.get(self._worker.url + "/health", timeout=PROBE_TIMEOUT_S, trust_env=False)
            except httpx.HTTPError as error:
                self.failure = repr(error)
            self.answers += 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": TEXT}]}),
        ("/v1/completions", {"prompt": TEXT}),
        ("/v1/responses", {"input": TEXT}),
    ],
)
def test_a_prompt_of_10_mb_is_refused_while_probes_and_streams_go_on(
    worker: Worker, path: str, body: dict[str, Any]
) -> None:
    stream, prober = Stream(worker), Prober(worker)
    try:
        for thread in (stream, prober):
            thread.start()
        wait_until(lambda: stream.events > 3 and prober.answers > 3, 60, "both are under way")
        error = worker.post(path, model="smollm2", **body).json()["error"]
        assert error["code"] == "context_length_exceeded"
        seen = stream.events, prober.answers
        wait_until(
            lambda: stream.events > seen[0] + 3 and prober.answers > seen[1] + 3, 60, "both go on after it"
        )
    finally:
        for thread in (stream, prober):
            thread.over.set()
            thread.join()
    assert stream.failure == ""
    assert prober.failure == ""


def test_a_long_text_is_counted_while_a_stream_goes_on(worker: Worker) -> None:
    stream = Stream(worker)
    try:
        stream.start()
        wait_until(lambda: stream.events > 3, 60, "the stream is under way")
        before = stream.events
        assert worker.post("/tokenize", prompt="words " * 300_000).json()["count"] == 300_001
        assert stream.events > before + 3
    finally:
        stream.over.set()
        stream.join()
    assert stream.failure == ""
