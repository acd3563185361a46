"""The requests behind one HTTP call, on their way through the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from llmlaunch.worker.engine.engine import Engine
from llmlaunch.worker.engine.types import GenerationRequest, Piece, Sink
from llmlaunch.worker.metrics import Metrics


def hand_over(bundle: Sequence[tuple[Sink, Piece]]) -> None:
    """Runs in the event loop: news to those who wait for them."""
    for sink, piece in bundle:
        sink(piece)


class Flight:
    """Submits requests, gathers their news; :meth:`close` cancels whatever is not over, so that no slot is ever kept."""

    def __init__(self, engine: Engine, requests: Sequence[GenerationRequest], metrics: Metrics) -> None:
        """Submit. Raises QueueFull or Unavailable; then none of the requests runs."""
        self._engine = engine
        self._requests = requests
        self._timers = [metrics.timer(request) for request in requests]
        self._news: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._open: set[int] = set()
        self._left = len(requests)
        try:
            for index, request in enumerate(requests):
                engine.submit(request, partial(self._put, index))
                self._open.add(index)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancel what is not over. May be called again, and at any time."""
        for index in self._open:
            self._engine.cancel(self._requests[index].request_id)
        self._open.clear()

    def _put(self, index: int, piece: Piece) -> None:
        self._timers[index].take(piece)
        if piece.last:
            self._open.discard(index)
        self._news.put_nowait((index, piece))

    async def next(self) -> tuple[int, Piece] | None:
        """The next news: (index of the request, piece); None when all requests are over.

        Raises the ApiError of a request that failed.
        """
        if not self._left:
            return None
        index, piece = await self._news.get()
        if piece.error is not None:
            raise piece.error
        self._left -= piece.last
        return index, piece

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        while (item := await self.next()) is not None:
            yield item
