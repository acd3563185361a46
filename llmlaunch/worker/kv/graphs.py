r"""CUDA graphs for steps that only decode, where they win.

The kernels of a decode are short, and a GPU often waits for Python to launch the next of hundreds. A CUDA graph launches
all of them at once; but it can only do again what was done when it was recorded, with the same memory. So steps of
one token for each request are computed in a few :class:`Shape`\ s, their tokens and columns rounded up, with everything
that differs from step to step in one tensor. Tokens that only fill up read one column and write a spare one.

::

    the n-th step of a shape:  1 … 15            16                      17 …
                               as any step ──►   recorded, compared ──►  replayed, if that gave the same
                                                 and timed               logits, and sooner

What can not be recorded, or comes out otherwise, is computed as any other step from then on.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from llmlaunch.worker.engine import batching_support
from llmlaunch.worker.engine.scheduler import Span
from llmlaunch.worker.errors import reason
from llmlaunch.worker.kv.cache import SlotCache
from llmlaunch.worker.kv.layout import Chunk, decode_mask
from llmlaunch.worker.loading.placement import GRAPH_BYTES, token_bytes

log = logging.getLogger(__name__)

USES = 16
"""Steps of a shape before it is recorded: recording takes as long as some of them."""
LEAST_COLUMNS = 256
TIMED = 2
"""Times that either way is measured; the best one counts."""
EACH_BYTES = 8 << 20
"""That the driver takes for a graph, about: some kilobytes for each of its hundreds of kernels."""
SPARE = 1
"""Columns that the cache must have behind those that are read."""


@dataclass(frozen=True, slots=True)
class Shape:
    """``tokens`` of as many rows, of which ``columns`` are read."""

    tokens: int
    columns: int
    in_order: bool
    """Token and row have the same number: the store is read where it is, not copied first."""


def shape_of(spans: Sequence[Span], rows: int, columns: int) -> Shape | None:
    """Of a step in a cache of ``rows`` and ``columns``; None for one that does more than decode."""
    if not all(len(span.tokens) == 1 and span.samples for span in spans):
        return None
    tokens = min(_power(len(spans), 1), rows)
    longest = max(span.start for span in spans) + 1
    return Shape(
        tokens, min(_power(longest, LEAST_COLUMNS), columns), max(span.row for span in spans) < tokens
    )


def _power(least: int, first: int) -> int:
    """``first``, doubled until it is ``least`` or more."""
    while first < least:
        first *= 2
    return first


class Recorder(Protocol):
    """What a device can do beyond computing."""

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """What does again what ``compute`` does now, on the same memory. It is called twice. Raises whatever stands in the way."""

    def seconds(self, work: Callable[[], object]) -> float:
        """From the start of ``work`` until the device has done it."""

    def used(self) -> int:
        """Bytes of the device's memory that PyTorch holds."""

    def begin(self) -> None:
        """Nothing that was recorded before will be replayed."""


@dataclass(frozen=True, slots=True)
class _Read:
    first: int
    last: int
    rows: slice | Tensor
    columns: int


class _Layout:
    """Of a pass whose places lie in tensors."""

    single = None
    chunks: tuple[Chunk, ...] = ()

    def __init__(
        self, shape: Shape, rows: Tensor, places: Tensor, lengths: Tensor, dtype: torch.dtype
    ) -> None:
        read = slice(0, shape.tokens) if shape.in_order else rows
        self.groups = (_Read(0, shape.tokens, read, shape.columns),)
        self._columns = shape.columns
        self._rows = rows
        self._places = places
        self._lengths = lengths
        self._dtype = dtype
        self._masks: dict[int | None, Tensor] = {}

    def places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        return self._rows, self._places

    def group_mask(self, index: int, window: int | None, device: torch.device) -> Tensor:
        if window not in self._masks:
            self._masks[window] = decode_mask(self._lengths, self._columns, window, self._dtype)
        return self._masks[window]

    def chunk_mask(self, index: int, window: int | None, device: torch.device) -> Tensor | None:
        raise AssertionError("a step that only decodes has no pieces of prompts")


class Steady:
    """Steps of one shape, recorded."""

    def __init__(
        self, model: Any, cache: SlotCache, shape: Shape, recorder: Recorder, first: Sequence[Span]
    ) -> None:
        """Records ``first``. Raises whatever stands in the way."""
        self._model = model
        self._cache = cache
        self._shape = shape
        self._device = model.get_input_embeddings().weight.device
        self._inputs = torch.zeros(5, shape.tokens, dtype=torch.long, device=self._device)
        self._fill(first)
        self._replay = recorder.record(self._compute)

    def run(self, spans: Sequence[Span]) -> Tensor:
        """Logits ``[spans, vocabulary]``."""
        wanted = self._fill(spans)
        return self._replay()[wanted]

    def _fill(self, spans: Sequence[Span]) -> Tensor:
        """Put the step in place; which of the tokens are those of ``spans``."""
        order = self._shape.in_order
        idle = self._cache.columns  # where tokens without a request write
        table = [(0, 0, at if order else 0, idle, 1) for at in range(self._shape.tokens)]
        wanted = [span.row if order else at for at, span in enumerate(spans)]
        for at, span in zip(wanted, spans, strict=True):
            table[at] = (span.tokens[0], span.start, span.row, span.start, span.start + 1)
        self._inputs.copy_(torch.tensor(table).T)
        return torch.tensor(wanted, device=self._device)

    def _compute(self) -> Tensor:
        """Logits ``[tokens, vocabulary]`` of what was put in place last."""
        tokens, positions, rows, places, lengths = self._inputs
        layout = _Layout(self._shape, rows, places, lengths, self._model.dtype)
        return self._cache.compute(self._model, layout, tokens[None], positions[None], 0)


class Graphs:
    """Recorded steps of one cache, until :meth:`forget`."""

    def __init__(self, model: Any, recorder: Recorder) -> None:
        self._model = model
        self._recorder = recorder
        self._bytes_left = GRAPH_BYTES
        self._given_up = False
        self._uses: dict[Shape, int] = {}
        self._recorded: dict[Shape, Steady] = {}
        self.steps = 0
        """That took another time than they would have taken otherwise."""

    def forget(self) -> None:
        """Another cache comes: what was recorded holds the memory of the last one."""
        self._uses.clear()
        self._recorded.clear()
        self._recorder.begin()
        self._bytes_left = GRAPH_BYTES

    def run(self, cache: SlotCache, spans: Sequence[Span]) -> Tensor | None:
        """Logits ``[spans, vocabulary]``, by a replay; None where there is none to do it."""
        shape = None if self._given_up else shape_of(spans, cache.rows, cache.columns)
        if shape is None:
            return None
        if shape not in self._recorded and self._due(shape):
            self.steps += 1
            self._record(cache, shape, spans)
        steady = self._recorded.get(shape)
        if steady is None:
            return None
        self.steps += 1
        return steady.run(spans)

    def _due(self, shape: Shape) -> bool:
        """Count a step of ``shape``; whether to record it."""
        uses = self._uses[shape] = self._uses.get(shape, 0) + 1
        # Copies are made once more before the recording, outside of its memory.
        return uses == USES and self._bytes_left > 0 and 2 * self._copied(shape) <= self._bytes_left

    def _copied(self, shape: Shape) -> int:
        """Bytes of keys and values that a layer copies together, where rows are not in order."""
        if shape.in_order:
            return 0
        layers: int = self._model.config.get_text_config().num_hidden_layers
        return shape.tokens * shape.columns * token_bytes(self._model) // layers

    def _record(self, cache: SlotCache, shape: Shape, spans: Sequence[Span]) -> None:
        """Record the shape, if that is right and quicker. Computes ``spans`` some times over; each writes the same."""
        try:
            before = self._recorder.used()
            unlike = self._compare(cache, shape, spans)
            # What lost is gone by now, and costs nothing.
            self._bytes_left -= max(0, self._recorder.used() - before) + EACH_BYTES * (
                shape in self._recorded
            )
        except Exception as error:
            unlike = reason(error, 200)
        if unlike:
            log.warning("no CUDA graphs: %s", unlike)
            self._given_up = True
            self._recorded.clear()

    def _compare(self, cache: SlotCache, shape: Shape, spans: Sequence[Span]) -> str:
        """Keep a recording of ``shape`` if it is quicker. What is wrong with it, in words; empty when nothing is."""
        plain_s, expected = self._best(lambda: cache.run(self._model, spans))
        steady = Steady(self._model, cache, shape, self._recorder, spans)
        replay_s, logits = self._best(lambda: steady.run(spans))
        unlike = batching_support.difference(logits, expected)
        if unlike:
            return f"a replay gave other logits ({unlike})"
        words = "%d tokens over %d columns take %.1f ms replayed and %.1f ms otherwise"
        log.info(words, shape.tokens, shape.columns, 1e3 * replay_s, 1e3 * plain_s)
        if replay_s < plain_s:
            self._recorded[shape] = steady
        return ""

    def _best(self, work: Callable[[], Tensor | None]) -> tuple[float, Tensor]:
        """Seconds that ``work`` takes at best, and what it gives."""
        found: list[Tensor | None] = []
        seconds = min(self._recorder.seconds(lambda: found.append(work())) for _ in range(TIMED))
        return seconds, cast(Tensor, found[-1])  # all that decode are drawn from: there are logits


class CudaRecorder:
    """CUDA graphs on one device that share their memory.

    As https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs has them made.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.begin()

    def begin(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        usual = torch.cuda.current_stream(self._device)
        self._try(compute, usual)
        graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(
            graph, pool=self._pool, stream=self._aside, capture_error_mode="thread_local"
        )
        try:
            with recording:
                logits = compute()
        except BaseException:
            # Some releases of PyTorch leave the allocator in the recording when its end raises; others refuse this.
            with contextlib.suppress(Exception):
                torch._C._cuda_endAllocateToPool(self._device.index, self._pool)
            raise
        finally:
            torch.cuda.set_stream(usual)  # a recording that fails does not go back by itself

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

    def _try(self, compute: Callable[[], Tensor], usual: torch.cuda.Stream) -> None:
        """Let libraries take what they need before the recording; and find out what would break it, when that is harmless."""
        mode = torch.cuda.get_sync_debug_mode()
        self._aside.wait_stream(usual)
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(self._aside):
                compute()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            usual.wait_stream(self._aside)

    def seconds(self, work: Callable[[], object]) -> float:
        torch.cuda.synchronize(self._device)
        began = time.perf_counter()
        work()
        torch.cuda.synchronize(self._device)
        return time.perf_counter() - began

    def used(self) -> int:
        torch.cuda.empty_cache()  # what is free and kept for later is not used
        return torch.cuda.memory_reserved(self._device)


def recorder(model: Any) -> Recorder | None:
    """For ``model``; None where nothing can be recorded: it lies on a CPU, or not on one device alone."""
    devices = {weight.device for weight in model.parameters()}
    device = devices.pop()
    return CudaRecorder(device) if device.type == "cuda" and not devices else None
