"""What the libraries of agents send reaches an engine as they sent it: forms, tools and fields that the gateway does not know."""

from __future__ import annotations

import json

import pytest

from tests.integration.gateway.fakes import Bench, Client
from tests.support.clients import recordings
from tests.support.clients.recordings import Turn


@pytest.mark.parametrize("turn", recordings.turns(), ids=lambda turn: turn.client)
def test_a_request_passes_through(bench: Bench, turn: Turn) -> None:
    worker = bench.worker()
    bench.serve(worker.replica("tiny"))
    sent = json.dumps(turn.body).encode()
    with Client(bench.gateway.port) as client:
        client.post(sent, turn.path)
        assert client.answer().status == 200
    [seen] = worker.seen
    assert (seen.path, seen.body) == (turn.path, sent)
