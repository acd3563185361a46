"""The engine requests of one HTTP call while they are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from llmlaunch.worker.engine.engine import GenerationEngine
from llmlaunch.worker.metrics import WorkerMetrics
from llmlaunch.worker.types import GenerationOutput, GenerationRequest, Sink


def hand_over(bundle: Sequence[tuple[Sink, GenerationOutput]]) -> None:
    """Pass outputs to their sinks. Runs in the event loop."""
    for sink, output in bundle:
        sink(output)


class InflightRequests:
    """Submits requests and collects their output; :meth:`close` cancels what has not ended, so no row stays occupied."""

    def __init__(
        self, engine: GenerationEngine, requests: Sequence[GenerationRequest], metrics: WorkerMetrics
    ) -> None:
        """Submit all requests. Raises QueueFull or Unavailable; then none of them runs."""
        self._engine = engine
        self._requests = requests
        self._timers = [metrics.timer(request) for request in requests]
        self._news: asyncio.Queue[tuple[int, GenerationOutput]] = asyncio.Queue()
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
        """Cancel what has not ended. Can be called repeatedly, and at any time."""
        for index in self._open:
            self._engine.cancel(self._requests[index].request_id)
        self._open.clear()

    def _put(self, index: int, output: GenerationOutput) -> None:
        self._timers[index].take(output)
        if output.last:
            self._open.discard(index)
        self._news.put_nowait((index, output))

    async def next(self) -> tuple[int, GenerationOutput] | None:
        """The next output: (index of the request, output); None when all requests have ended.

        Raises the ApiError of a request that failed.
        """
        if not self._left:
            return None
        index, output = await self._news.get()
        if output.error is not None:
            raise output.error
        self._left -= output.last
        return index, output

    async def outputs(self) -> AsyncIterator[tuple[int, GenerationOutput]]:
        while (item := await self.next()) is not None:
            yield item
