"""A stream whose replica takes its time: its client hears from the gateway all the while."""

from __future__ import annotations

import threading

from tests.integration.gateway.fakes import Client, Seen, Talk, running

IMPATIENT = "from llmlaunch.gateway.exchange import exchange\nexchange.KEEP_ALIVE_S = 0.1"
ASKED = {"model": "m", "messages": [], "stream": True}
COMMENT = b": keep-alive\n\n"


def test_the_client_of_a_silent_stream_gets_comments_and_does_not_notice_that_the_replica_dies() -> None:
    heard = threading.Event()

    def dies_in_the_prefill(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        heard.wait(20)
        talk.hang_up()

    with running(prelude=IMPATIENT) as bench:
        bad, good = bench.worker(dies_in_the_prefill), bench.worker()
        bench.serve(bad.replica("m"), good.replica("m", queue_length=50))
        with Client(bench.port) as client:
            client.post(ASKED)
            status, fields = client.head()
            assert (status, fields["content-type"]) == (200, "text/event-stream")
            assert client.chunk() == client.chunk() == COMMENT
            assert bench.metric("time_to_first_byte_seconds_count", model="m") == 0
            heard.set()
            said = b"".join(iter(client.chunk, b""))
            assert said.replace(COMMENT, b"").startswith(b'data: {"id"')
            assert said.endswith(b"data: [DONE]\n\n")
            client.post(ASKED | {"stream": False})
            assert client.answer().json["choices"][0]["message"]["content"] == "Hello"
        assert bad.seen
        assert len(good.seen) == 2
        assert bench.metric("time_to_first_byte_seconds_count", model="m") == 2
