"""The engine's thread: takes requests from any thread, runs a strategy, and delivers output in bundles.

::

    submit, cancel ──► inbox ──► [ thread: strategy.step() … ] ──► deliver([(sink, output), …])

However a request ends (finished, cancelled, a failed step, shutdown), its sink gets exactly one last output, and its row
in the cache is free.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from llmlaunch.worker.engine.strategy import Strategy
from llmlaunch.worker.errors import (
    ApiError,
    DeviceLostError,
    EngineFault,
    OnDeviceLost,
    QueueFull,
    Unavailable,
    first_line,
    reason,
)
from llmlaunch.worker.output.answer import AnswerBuilder
from llmlaunch.worker.types import EngineLoad, FinishReason, GenerationOutput, GenerationRequest, Sink

log = logging.getLogger(__name__)

Deliver = Callable[[list[tuple[Sink, GenerationOutput]]], None]


class GenerationEngine:
    """Runs one strategy in one thread. Public methods may be called from any thread."""

    def __init__(
        self,
        strategy: Strategy,
        *,
        decode: Callable[[Sequence[int], bool], str],
        ends: frozenset[int],
        deliver: Deliver,
        lost: OnDeviceLost,
        max_requests: int = 1 << 30,
        before_step: Callable[[], None] = lambda: None,
    ) -> None:
        """``decode(tokens, skip_special)`` → text; ``ends``: the model's end tokens; ``max_requests``: maximum number of requests,
        waiting ones included.

        ``lost`` is called when the engine ends because the device can no longer be used, ``before_step`` before every
        step, both in the engine's thread.
        """
        self._strategy = strategy
        self._decode = decode
        self._ends = ends
        self._deliver = deliver
        self._lost = lost
        self._max_requests = max_requests
        self._before_step = before_step
        self._inbox: queue.SimpleQueue[tuple[AnswerBuilder, Sink] | None] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._pending: dict[str, Sink] = {}
        self._answers: dict[str, AnswerBuilder] = {}
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)

    @property
    def mode(self) -> str:
        """How requests share the model, for people."""
        return self._strategy.mode

    @property
    def pending(self) -> int:
        """Number of requests that have not ended."""
        return len(self._pending)

    def start(self) -> None:
        """Start the thread. Call once, before the first request."""
        self._thread.start()

    def submit(self, request: GenerationRequest, sink: Sink) -> None:
        """Take a request; its output goes to ``sink``. Raises QueueFull, or Unavailable during shutdown."""
        skip = request.skip_special_tokens
        answer = AnswerBuilder(request, lambda tokens: self._decode(tokens, skip), self._ends)
        with self._lock:
            if self._stopping:
                raise Unavailable("the worker is shutting down")
            if len(self._pending) >= self._max_requests:
                raise QueueFull(f"{len(self._pending)} requests are running or waiting; try again later")
            self._pending[request.request_id] = sink
        self._inbox.put((answer, sink))

    def cancel(self, request_id: str) -> None:
        """End a request at the next step. Does nothing if it has ended already."""
        with self._lock:
            if request_id not in self._pending:
                return
            self._cancelled.add(request_id)
        self._inbox.put(None)

    def load(self) -> EngineLoad:
        """How busy the engine is now; a copy that does not change."""
        return replace(self._strategy.load())

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop the thread after the current step, and wait up to ``timeout_s`` seconds for it.

        Requests that have not ended get an error.
        """
        with self._lock:
            self._stopping = True
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _main(self) -> None:
        while True:
            self._receive()
            if self._stopping:
                self._fail_all(Unavailable("the worker is shutting down"))
                return
            self._drop_cancelled()
            if not self._strategy.busy:
                continue
            try:
                self._before_step()
                outputs = self._strategy.step()
            except Exception as error:
                self._handle_failed_step(error)
            else:
                self._deliver_outputs(outputs)

    def _receive(self) -> None:
        """Take all requests from the inbox; block if there is nothing to compute."""
        block = not (self._strategy.busy or self._cancelled or self._stopping)
        while True:
            try:
                item = self._inbox.get(block=block)
            except queue.Empty:
                return
            block = False
            if item is not None:
                self._admit(*item)

    def _admit(self, answer: AnswerBuilder, sink: Sink) -> None:
        request_id = answer.request.request_id
        self._answers[request_id] = answer
        try:
            self._strategy.add(answer)
        except ApiError as error:
            self._deliver_outputs([(request_id, GenerationOutput(error=error))])
        except Exception as error:
            log.exception("request %s could not be accepted", request_id)
            fault = EngineFault(f"the engine could not accept the request: {error}")
            self._deliver_outputs([(request_id, GenerationOutput(error=fault))])

    def _drop_cancelled(self) -> None:
        with self._lock:
            # Requests still in the inbox are handled in the next round.
            names = [name for name in self._cancelled if name in self._answers]
        outputs = []
        for name in names:
            self._strategy.remove(name)
            output = GenerationOutput(
                finish=FinishReason.CANCELLED, completion_tokens=self._answers[name].count
            )
            outputs.append((name, output))
        self._deliver_outputs(outputs)

    def _deliver_outputs(self, outputs: list[tuple[str, GenerationOutput]]) -> None:
        bundle: list[tuple[Sink, GenerationOutput]] = []
        with self._lock:
            for name, output in outputs:
                sink = self._pending.get(name)
                if sink is None:
                    continue
                bundle.append((sink, output))
                if output.last:
                    del self._pending[name]
                    self._answers.pop(name, None)
                    self._cancelled.discard(name)
        if bundle:
            self._deliver(bundle)

    def _handle_failed_step(self, error: Exception) -> None:
        """A step failed. The state of the cache is unknown, so all its requests fail and the cache is recreated."""
        if _out_of_memory(error):
            log.error("out of memory in a step with %d requests: %s", len(self._answers), first_line(error))
            answer: ApiError = Unavailable(
                "the device ran out of memory on this request; ask for less, or lower --limit-worker-concurrency "
                "or --max-model-len",
                code="out_of_memory",
            )
        else:
            log.error("the engine failed in a step with %d requests", len(self._answers), exc_info=error)
            answer = EngineFault(f"the engine failed: {reason(error)}")
        self._fail_all(answer)
        try:
            self._strategy.recover()
        except Exception as refusal:
            end = refusal if isinstance(refusal, DeviceLostError) else DeviceLostError(reason(refusal))
            log.error("the engine cannot recover: %s", end.message)
            with self._lock:
                self._stopping = True
            self._lost(end)

    def _fail_all(self, error: ApiError) -> None:
        with self._lock:
            names = list(self._pending) if self._stopping else list(self._answers)
        for name in names:
            self._strategy.remove(name)
        self._deliver_outputs([(name, GenerationOutput(error=error)) for name in names])


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
