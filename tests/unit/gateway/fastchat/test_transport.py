"""The translator in a socket's place, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

from llmlaunch.gateway.fastchat.conversation import ConversationTemplate
from llmlaunch.gateway.fastchat.transport import TranslatingTransport
from llmlaunch.gateway.fastchat.worker import FastChatWorker, ModelDetails
from llmlaunch.gateway.http1.upstream import UpstreamConnection

REQUEST = b'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n\r\n{"model": "m", "prompt": "a", "max_tokens": 900, "stream": true}'


class Endless(FastChatWorker):
    """Tells pieces as fast as they are taken."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", 1)
        self.told = 0
        self.ended = False

    async def details(self, model: str) -> ModelDetails:
        return ModelDetails(ConversationTemplate("DEFAULT", ("U", "A")), 1000)

    async def count(self, model: str, text: str) -> int:
        return 1

    async def generate(self, parameters: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        try:
            while True:
                await asyncio.sleep(0)
                self.told += 1
                yield {"text": "x" * self.told, "error_code": 0}
        finally:
            self.ended = True


class Reader:
    """Pauses after so many reads, as a client that does not read makes the gateway do."""

    key = "http://127.0.0.1:1"

    def __init__(self, pause_after: int) -> None:
        self.transport: TranslatingTransport | None = None
        self.reads = 0
        self.lost: list[Exception | None] = []
        self._pause_after = pause_after

    def data_received(self, data: bytes) -> None:
        self.reads += 1
        if self.reads == self._pause_after and self.transport is not None:
            self.transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)


async def turns(count: int = 200) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_reader_that_is_slow_slows_the_worker() -> None:
    async def life() -> None:
        worker, reader = Endless(), Reader(pause_after=5)
        reader.transport = TranslatingTransport(cast(UpstreamConnection, reader), worker)
        reader.transport.write(REQUEST)
        await turns()
        assert (reader.reads, worker.told) == (5, 6)
        reader.transport.resume_reading()
        await turns()
        assert reader.reads > 50
        reader.transport.abort()
        before = reader.reads
        await turns()
        assert worker.ended
        assert reader.reads == before
        assert reader.lost == [None]

    asyncio.run(life())


def test_aborting_while_it_is_paused_ends_the_work() -> None:
    async def life() -> None:
        worker, reader = Endless(), Reader(pause_after=1)
        reader.transport = TranslatingTransport(cast(UpstreamConnection, reader), worker)
        reader.transport.write(REQUEST)
        await turns()
        assert worker.told == 2
        reader.transport.abort()
        await turns()
        assert worker.ended

    asyncio.run(life())
