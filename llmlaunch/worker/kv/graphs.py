r"""CUDA graphs for steps that only decode, used where they are faster.

The kernels of a decode are short, and a GPU often waits for Python to launch the next of hundreds. A CUDA graph launches
all of them at once; but it can only repeat what was recorded, on the same memory. So steps with one token per request
are computed in a few :class:`GraphShape`\ s, with tokens and columns rounded up, and everything that differs from step
to step in one tensor. Padding tokens read one column and write to a spare one.

::

    the n-th step of a shape:  1 … 15            16                      17 …
                               computed    ──►   recorded, compared ──►  replayed, if that gave the same
                               as usual          and timed               logits, and was faster

Whatever cannot be recorded, or gives other logits, is computed as usual from then on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from llmlaunch.worker.errors import reason
from llmlaunch.worker.kv.cache import KVCache
from llmlaunch.worker.kv.comparison import difference
from llmlaunch.worker.kv.layout import Chunk, decode_mask
from llmlaunch.worker.kv.memory import GRAPH_BYTES, token_bytes
from llmlaunch.worker.kv.types import Span

log = logging.getLogger(__name__)

USES_BEFORE_RECORDING = 16
"""Steps of a shape before it is recorded: recording costs as much as several steps."""
MIN_COLUMNS = 256
MEASUREMENTS = 2
"""Measurements of each variant; the best one counts."""
BYTES_PER_GRAPH = 8 << 20
"""Approximate memory that the driver takes for a graph: some kilobytes for each of its hundreds of kernels."""
SPARE_COLUMNS = 1
"""Columns that the cache must have beyond those that are read."""


@dataclass(frozen=True, slots=True)
class GraphShape:
    """``tokens`` in as many rows, of which ``columns`` are read."""

    tokens: int
    columns: int
    in_order: bool
    """Whether token i is in row i: then the cache is read in place, not gathered first."""


def shape_of(spans: Sequence[Span], rows: int, columns: int) -> GraphShape | None:
    """The shape of a step in a cache of ``rows`` and ``columns``; None if it does more than decode."""
    if not all(len(span.tokens) == 1 and span.samples for span in spans):
        return None
    tokens = min(_power(len(spans), 1), rows)
    longest = max(span.start for span in spans) + 1
    return GraphShape(
        tokens, min(_power(longest, MIN_COLUMNS), columns), max(span.row for span in spans) < tokens
    )


def _power(least: int, first: int) -> int:
    """``first``, doubled until it is at least ``least``."""
    while first < least:
        first *= 2
    return first


class Recorder(Protocol):
    """Records and times work on one device."""

    def record(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return a function that replays ``compute`` on the same memory. Calls ``compute`` twice. Raises if it cannot be recorded."""

    def seconds(self, work: Callable[[], object]) -> float:
        """Run ``work``; return the seconds until the device has finished it."""

    def used(self) -> int:
        """Bytes of device memory that PyTorch holds."""

    def begin(self) -> None:
        """Discard the memory of earlier recordings: none of them will be replayed again."""


@dataclass(frozen=True, slots=True)
class _ReplayCall:
    first: int
    last: int
    rows: slice | Tensor
    columns: int


class _ReplayLayout:
    """The layout of a recorded pass: rows, columns and lengths are tensors."""

    single = None
    chunks: tuple[Chunk, ...] = ()

    def __init__(
        self, shape: GraphShape, rows: Tensor, places: Tensor, lengths: Tensor, dtype: torch.dtype
    ) -> None:
        read = slice(0, shape.tokens) if shape.in_order else rows
        self.groups = (_ReplayCall(0, shape.tokens, read, shape.columns),)
        self._columns = shape.columns
        self._rows = rows
        self._places = places
        self._lengths = lengths
        self._dtype = dtype
        self._masks: dict[int | None, Tensor] = {}

    def write_positions(self, device: torch.device) -> tuple[Tensor, Tensor]:
        return self._rows, self._places

    def group_mask(self, index: int, window: int | None, device: torch.device) -> Tensor:
        if window not in self._masks:
            self._masks[window] = decode_mask(self._lengths, self._columns, window, self._dtype)
        return self._masks[window]

    def chunk_mask(self, index: int, window: int | None, device: torch.device) -> Tensor | None:
        raise AssertionError("a step that only decodes has no prompt chunks")


class RecordedStep:
    """A recorded step of one shape."""

    def __init__(
        self, model: Any, cache: KVCache, shape: GraphShape, recorder: Recorder, first: Sequence[Span]
    ) -> None:
        """Record the step ``first``. Raises if it cannot be recorded."""
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
        """Write the step into the input tensor; return the indexes of the tokens of ``spans``."""
        order = self._shape.in_order
        idle = self._cache.columns  # the spare column, where padding tokens write
        table = [(0, 0, at if order else 0, idle, 1) for at in range(self._shape.tokens)]
        wanted = [span.row if order else at for at, span in enumerate(spans)]
        for at, span in zip(wanted, spans, strict=True):
            table[at] = (span.tokens[0], span.start, span.row, span.start, span.start + 1)
        self._inputs.copy_(torch.tensor(table).T)
        return torch.tensor(wanted, device=self._device)

    def _compute(self) -> Tensor:
        """Logits ``[tokens, vocabulary]`` of the current input tensor."""
        tokens, positions, rows, places, lengths = self._inputs
        layout = _ReplayLayout(self._shape, rows, places, lengths, self._model.dtype)
        return self._cache.compute(self._model, layout, tokens[None], positions[None], 0)


class CudaGraphs:
    """The recorded steps of one cache, until :meth:`reset`."""

    def __init__(self, model: Any, recorder: Recorder) -> None:
        self._model = model
        self._recorder = recorder
        self._bytes_left = GRAPH_BYTES
        self._disabled = False
        self._uses: dict[GraphShape, int] = {}
        self._recorded: dict[GraphShape, RecordedStep] = {}
        self.steps = 0
        """Number of steps that were recorded or replayed, so their duration is not typical."""

    def reset(self) -> None:
        """The cache is replaced: recorded graphs refer to the old one's memory."""
        self._uses.clear()
        self._recorded.clear()
        self._recorder.begin()
        self._bytes_left = GRAPH_BYTES

    def run(self, cache: KVCache, spans: Sequence[Span]) -> Tensor | None:
        """Logits ``[spans, vocabulary]`` from a replay; None if there is no recording for this step."""
        shape = None if self._disabled else shape_of(spans, cache.rows, cache.columns)
        if shape is None:
            return None
        if shape not in self._recorded and self._due(shape):
            self.steps += 1
            self._record(cache, shape, spans)
        recorded = self._recorded.get(shape)
        if recorded is None:
            return None
        self.steps += 1
        return recorded.run(spans)

    def _due(self, shape: GraphShape) -> bool:
        """Count a step of ``shape``; return whether to record it."""
        uses = self._uses[shape] = self._uses.get(shape, 0) + 1
        # The gathered copies are allocated once more before the recording, outside of its memory pool.
        return (
            uses == USES_BEFORE_RECORDING
            and self._bytes_left > 0
            and 2 * self._copied(shape) <= self._bytes_left
        )

    def _copied(self, shape: GraphShape) -> int:
        """Bytes of keys and values that a layer gathers, if rows are not in order."""
        if shape.in_order:
            return 0
        layers: int = self._model.config.get_text_config().num_hidden_layers
        return shape.tokens * shape.columns * token_bytes(self._model) // layers

    def _record(self, cache: KVCache, shape: GraphShape, spans: Sequence[Span]) -> None:
        """Record the shape if that is correct and faster. Computes ``spans`` several times; each time writes the same."""
        try:
            before = self._recorder.used()
            unlike = self._compare(cache, shape, spans)
            # A recording that was slower has been freed by now.
            self._bytes_left -= max(0, self._recorder.used() - before) + BYTES_PER_GRAPH * (
                shape in self._recorded
            )
        except Exception as error:
            unlike = reason(error, 200)
        if unlike:
            log.warning("CUDA graphs are off: %s", unlike)
            self._disabled = True
            self._recorded.clear()

    def _compare(self, cache: KVCache, shape: GraphShape, spans: Sequence[Span]) -> str:
        """Keep a recording of ``shape`` if it is faster. Returns what is wrong with it; empty if nothing is."""
        plain_s, expected = self._best(lambda: cache.run(self._model, spans))
        recorded = RecordedStep(self._model, cache, shape, self._recorder, spans)
        replay_s, logits = self._best(lambda: recorded.run(spans))
        unlike = difference(logits, expected)
        if unlike:
            return f"a replay gave different logits ({unlike})"
        words = "%d tokens over %d columns take %.1f ms replayed, %.1f ms otherwise"
        log.info(words, shape.tokens, shape.columns, 1e3 * replay_s, 1e3 * plain_s)
        if replay_s < plain_s:
            self._recorded[shape] = recorded
        return ""

    def _best(self, work: Callable[[], Tensor | None]) -> tuple[float, Tensor]:
        """The shortest time of ``work`` in seconds, and its result."""
        found: list[Tensor | None] = []
        seconds = min(self._recorder.seconds(lambda: found.append(work())) for _ in range(MEASUREMENTS))
        return seconds, cast(Tensor, found[-1])  # every decode is sampled from: there are logits
