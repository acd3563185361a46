"""The coalescer in real event loops: it lets events through, and leaves the loop alone when they are over."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
import uvloop

from llmlaunch.gateway.http1.coalesce import SHORTEST_LOOK_S, Coalescer

EVENTS = 3000


class Counter(asyncio.Protocol):
    """Every byte is an event."""

    def __init__(self, coalescer: Coalescer) -> None:
        self.coalescer = coalescer
        self.bytes = bytearray()

    def data_received(self, data: bytes) -> None:
        self.bytes += data
        self.coalescer.passed += len(data)


@pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_events_pass_and_the_loop_comes_to_rest(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        time.sleep(seconds)

    async def story(near: socket.socket, far: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        turns = 0

        def call_soon(turn: Callable[[], None]) -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turn)

        coalescer = Coalescer(call_soon, sleep=sleep)
        transport, protocol = await loop.create_connection(lambda: Counter(coalescer), sock=near)
        sent = bytes(at % 251 for at in range(EVENTS))
        coalescer.passed = 1_000_000  # they came just now
        await asyncio.sleep(2 * SHORTEST_LOOK_S)
        coalescer.look()
        assert turns == 1
        for at in range(EVENTS):
            far.send(sent[at : at + 1])
            if at % 10 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(20):
            while len(protocol.bytes) < EVENTS:
                await asyncio.sleep(0.001)
            assert protocol.bytes == sent
            assert naps
            before = -1
            while before != turns:  # it goes on for a few turns without events
                before = turns
                await asyncio.sleep(0.05)
        transport.close()

    near, far = socket.socketpair()
    with near, far, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story(near, far))
