"""Long streams, when the gateway is restarted and when everything is taken down."""

from __future__ import annotations

import contextlib
import threading

from tests.integration.cli.support import Fake, write
from tests.integration.gateway.fakes import Client
from tests.support.deployment import Cli
from tests.support.deployment import cli as fresh_cli
from tests.support.ports import free_port

STREAMS = 6
BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "go on"}]}


def ends_of_streams(lab: Cli, port: int, *verb: str) -> list[bytes]:
    """The last bytes that clients get of streams that were open when ``verb`` was given."""
    ends: list[bytes] = []

    def read(client: Client) -> None:
        ends.append(client.to_the_end()[-400:])

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(port, 30)) for _ in range(STREAMS)]
        for client in clients:
            client.post(BODY, extra="content-type: application/json\r\n")
            assert client.head()[0] == 200
            client.chunk()
        readers = [threading.Thread(target=read, args=(client,)) for client in clients]
        for reader in readers:
            reader.start()
        lab.ok(*verb)
        for reader in readers:
            reader.join(20)
    return ends


def test_every_long_stream_ends_with_an_error_that_clients_see() -> None:
    port = free_port()
    endless = Fake("m", ["--chunks", "100000", "--chunk-delay", "0.1"], more={"stop_grace": "500ms"})
    with fresh_cli() as lab:
        write(lab, endless, api={"port": port})
        lab.ok("up", "-d")
        for verb in (("restart", "api"), ("down",)):
            ends = ends_of_streams(lab, port, *verb)
            assert len(ends) == STREAMS, verb
            assert all(b"stream_interrupted" in end for end in ends), (verb, ends)
