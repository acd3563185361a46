"""The layout of one forward pass: where each token's keys and values are written, and what it reads.

A step's tokens form one flat sequence, decodes and prompt chunks side by side. ``kv.cache`` computes attention over it
in the calls that are arranged here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from llmlaunch.worker.kv.types import Span

CALL_COST = 256
"""Columns of keys and values that could be read in the time of one additional attention call."""


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decoding tokens ``first``…``last - 1`` of the flat sequence, in consecutive rows from ``row`` on.

    ``lengths``: columns that each row sees; ``columns``: the longest of these, read for all rows.
    """

    first: int
    last: int
    row: int
    columns: int
    lengths: tuple[int, ...]

    @property
    def rows(self) -> slice:
        """The rows of the cache, one for each token."""
        return slice(self.row, self.row + len(self.lengths))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A prompt chunk: tokens ``first``…``last - 1`` of the flat sequence, in columns ``start``… of one row."""

    first: int
    last: int
    row: int
    start: int


def split_into_calls(
    spans: Sequence[Span], call_cost: int = CALL_COST
) -> tuple[list[DecodeGroup], list[Chunk]]:
    """Split a step's attention into calls. ``spans`` are in the order of their rows.

    All rows of a call cost as much as the longest, so a row of very different length gets its own call.
    """
    groups: list[DecodeGroup] = []
    chunks: list[Chunk] = []
    at = 0
    for span in spans:
        size, length = len(span.tokens), span.start + len(span.tokens)
        if size > 1:
            chunks.append(Chunk(at, at + size, span.row, span.start))
        elif groups and _can_join(groups[-1], at, span.row, length, call_cost):
            last = groups[-1]
            groups[-1] = DecodeGroup(
                last.first, at + 1, last.row, max(last.columns, length), (*last.lengths, length)
            )
        else:
            groups.append(DecodeGroup(at, at + 1, span.row, length, (length,)))
        at += size
    return groups, chunks


def _can_join(group: DecodeGroup, at: int, row: int, length: int, call_cost: int) -> bool:
    if group.last != at or group.row + len(group.lengths) != row:
        return False
    shorter = group.columns - length
    return (shorter if shorter >= 0 else -shorter * len(group.lengths)) <= call_cost


class AttentionCall(Protocol):
    """One attention call for decoding tokens of the flat sequence."""

    @property
    def first(self) -> int:
        """Index of its first token."""

    @property
    def last(self) -> int:
        """Index after its last token."""

    @property
    def rows(self) -> slice | Tensor:
        """One row per token."""

    @property
    def columns(self) -> int:
        """Number of columns read in each row."""


class Layout(Protocol):
    """Where the tokens of one forward pass are written, and what they read."""

    @property
    def single(self) -> Span | None:
        """The span, if there is only one: it is written as a slice."""

    @property
    def groups(self) -> Sequence[AttentionCall]:
        """The decoding tokens, by attention call."""

    @property
    def chunks(self) -> Sequence[Chunk]:
        """The prompt chunks; each is an attention call of its own."""

    def write_positions(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Row and column of every token, on ``device``."""

    def group_mask(self, index: int, window: int | None, device: torch.device) -> Tensor | None:
        """Additive, ``[rows, 1, 1, columns]``; None if every row sees all columns."""

    def chunk_mask(self, index: int, window: int | None, device: torch.device) -> Tensor | None:
        """Additive, ``[tokens, columns]``; None if a causal mask from column 0 is enough."""


class SpanLayout:
    """The layout of any step. Masks and indexes are computed once per device and window, and shared by the layers."""

    def __init__(
        self,
        spans: Sequence[Span],
        device: torch.device,
        dtype: torch.dtype,
        all_logits: Collection[str] = (),
    ) -> None:
        """``all_logits``: requests that want the logits after each token, not only after a span's last one."""
        self.single = spans[0] if len(spans) == 1 else None
        self.groups, self.chunks = split_into_calls(spans)
        self._dtype = dtype
        tokens = [token for span in spans for token in span.tokens]
        columns = [column for span in spans for column in range(span.start, span.start + len(span.tokens))]
        rows = [span.row for span in spans for _ in span.tokens]
        self.size = len(tokens)
        ends: list[int] = []
        at = 0
        for span in spans:
            at += len(span.tokens)
            if span.request_id in all_logits:
                ends.extend(range(at - len(span.tokens), at))
            elif span.samples:
                ends.append(at - 1)
        self.tokens = torch.tensor([tokens], device=device)
        self.positions = torch.tensor([columns], device=device)
        self.ends = torch.tensor(ends, device=device, dtype=torch.long)
        self._rows = torch.tensor(rows)
        self._columns = torch.tensor(columns)
        self._write_positions: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._masks: dict[tuple[object, ...], Tensor | None] = {}

    def write_positions(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Row and column of every token, ``[tokens]`` each, on ``device``."""
        if device not in self._write_positions:
            self._write_positions[device] = (self._rows.to(device), self._columns.to(device))
        return self._write_positions[device]

    def group_mask(self, index: int, window: int | None, device: torch.device) -> Tensor | None:
        """Additive mask ``[rows, 1, 1, columns]`` of a group; None if every row sees all columns."""
        key = ("group", index, window, device)
        if key not in self._masks:
            group = self.groups[index]
            self._masks[key] = self._group_mask(group, window, device)
        return self._masks[key]

    def _group_mask(self, group: DecodeGroup, window: int | None, device: torch.device) -> Tensor | None:
        if all(length == group.columns for length in group.lengths) and not (
            window and group.columns > window
        ):
            return None
        return decode_mask(torch.tensor(group.lengths, device=device), group.columns, window, self._dtype)

    def chunk_mask(self, index: int, window: int | None, device: torch.device) -> Tensor | None:
        """Additive mask ``[tokens, columns]`` of a chunk; None if a causal mask from column 0 is enough."""
        key = ("chunk", index, window, device)
        if key not in self._masks:
            chunk = self.chunks[index]
            size = chunk.last - chunk.first
            if chunk.start == 0 and not (window and size > window):
                self._masks[key] = None
            else:
                positions = torch.arange(chunk.start, chunk.start + size, device=device)[:, None]
                columns = torch.arange(chunk.start + size, device=device)[None]
                seen = columns <= positions
                if window:
                    seen &= columns > positions - window
                self._masks[key] = _additive(seen, self._dtype)
        return self._masks[key]


def decode_mask(lengths: Tensor, columns: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """Additive mask ``[rows, 1, 1, columns]`` for rows that see their first ``lengths`` ``[rows]`` columns.

    ``window``: they see only the last ``window`` of these.
    """
    ends = lengths[:, None]
    places = torch.arange(columns, device=lengths.device)[None]
    seen = places < ends
    if window:
        seen &= places >= ends - window
    return _additive(seen, dtype)[:, None, None]


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, float("-inf"))
