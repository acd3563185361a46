"""What the scheduler tells the KV cache: plain values. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capacity:
    """Size of the KV cache. ``columns`` is also the longest request; both in tokens."""

    rows: int
    columns: int
    tokens: int
    """Over all rows; at most rows × columns."""


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one request in one step, written to columns ``start``… of ``row``."""

    request_id: str
    row: int
    start: int
    tokens: tuple[int, ...]
    samples: bool
    """Whether the logits after its last token are sampled from."""
    prompt: bool
    """Whether it computes the prompt rather than the newest token."""


@dataclass(frozen=True, slots=True)
class CopyColumns:
    """Columns 0…``columns`` of row ``source`` must be copied to ``target`` before the step computes."""

    source: int
    target: int
    columns: int


@dataclass(frozen=True, slots=True)
class DropRow:
    """The columns of ``row`` are no longer needed: its memory may be released."""

    row: int
