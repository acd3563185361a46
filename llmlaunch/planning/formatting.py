"""Sizes and lists in words, for reasons that a person reads."""

from __future__ import annotations

from collections.abc import Sequence

_GiB = 1 << 30
_MiB = 1 << 20


def size(count: int) -> str:
    """``16 GiB`` or ``512 MiB``, one decimal above a GiB. ``count`` in bytes."""
    return f"{count / _GiB:.1f} GiB" if abs(count) >= _GiB else f"{count / _MiB:.0f} MiB"


def sizes(parts: Sequence[tuple[str, int]], total: int) -> str:
    """``weights 12.6 + KV cache 1.5 + context 0.8`` in GiB; of a small ``total`` in MiB, which is said then."""
    if total >= 4 * _GiB:
        return " + ".join(f"{name} {count / _GiB:.1f}" for name, count in parts)
    return " + ".join(f"{name} {count / _MiB:.0f}" for name, count in parts) + " MiB"


def listed(items: Sequence[str], last: str = "and") -> str:
    """``a, b and c``."""
    return f"{', '.join(items[:-1])} {last} {items[-1]}" if len(items) > 1 else "".join(items)
