"""The engine requests of one API request while they are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

from llmlaunch.worker.engine.engine import GenerationEngine
from llmlaunch.worker.metrics import WorkerMetrics
from llmlaunch.worker.types import GenerationOutput, GenerationRequest, Sink

IndexedOutput = tuple[int, GenerationOutput]
"""The index of a request, and its output."""


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
        self._outputs: asyncio.Queue[IndexedOutput] = asyncio.Queue()
        self._running: set[int] = set()
        self._unfinished = len(requests)
        self._ahead: IndexedOutput | None = None
        """An output that :meth:`wait` has taken from the queue for :meth:`next`."""
        try:
            for index, request in enumerate(requests):
                engine.submit(request, partial(self._put, index))
                self._running.add(index)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancel what has not ended. Can be called repeatedly, and at any time."""
        for index in self._running:
            self._engine.cancel(self._requests[index].request_id)
        self._running.clear()

    def _put(self, index: int, output: GenerationOutput) -> None:
        self._timers[index].take(output)
        if output.last:
            self._running.discard(index)
        self._outputs.put_nowait((index, output))

    async def wait(self) -> None:
        """Wait until there is something for :meth:`next` to return or raise."""
        if self._ahead is None and self._unfinished:
            self._ahead = await self._outputs.get()

    async def begin(self, seconds: float) -> bool:
        """:meth:`wait`, but for ``seconds`` at most; return whether an output came.

        Raises the ApiError of a request that failed in that time.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.wait()
        except TimeoutError:
            return False
        if self._ahead is not None and self._ahead[1].error is not None:
            raise self._ahead[1].error
        return True

    async def next(self) -> IndexedOutput | None:
        """Return the next output; None when all requests have ended. Raises the ApiError of a request that failed."""
        if not self._unfinished:
            return None
        ahead, self._ahead = self._ahead, None
        index, output = await self._outputs.get() if ahead is None else ahead
        if output.error is not None:
            raise output.error
        self._unfinished -= output.last
        return index, output

    async def outputs(self) -> AsyncIterator[IndexedOutput]:
        """Yield every output until all requests have ended. Raises as :meth:`next`."""
        while (item := await self.next()) is not None:
            yield item
