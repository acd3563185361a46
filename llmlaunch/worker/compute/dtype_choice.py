"""Which type a CPU computes a model fastest in, without losing any of what its weights say. Pure.

Many CPUs have no instructions for bfloat16 and emulate it: a token at a time that costs little, because reading the weights
takes longer, but for a batch or a prompt each product takes up to four times as long as in float32. Every bfloat16 and float16
is also a float32, so widening loses nothing but memory; between the two 16-bit types something would be lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

WIDENED = "float32"
NARROW = ("bfloat16", "float16")
MEMORY_SHARE = 0.5
"""Fraction of the free main memory that weights may take in float32: the rest is for the KV cache, and for other workers that
load at the same time."""


@dataclass(frozen=True, slots=True)
class ProductTimes:
    """Seconds that the same weights take in one type: multiplied with a few tokens, and with many."""

    few: float
    many: float


@dataclass(frozen=True, slots=True)
class DtypeChoice:
    """``name`` as ``--dtype`` takes it, and why, for people; no reason where nothing was chosen."""

    name: str
    why: str = ""


def fits(parameters: int | None, available: int) -> bool:
    """Whether so many weights can be held in float32, with ``available`` bytes of free main memory."""
    return parameters is not None and 4 * parameters <= MEMORY_SHARE * available


def ratio(stored: ProductTimes, wide: ProductTimes, decodes: bool) -> float:
    """How many times as fast ``wide`` is: the geometric mean of few tokens and many, or many alone unless it decodes."""
    many = stored.many / wide.many
    return float((stored.few / wide.few * many) ** 0.5) if decodes else many


def choose(stored: str, times: Mapping[str, ProductTimes], decodes: bool) -> DtypeChoice:
    """The faster of ``stored`` and float32. ``decodes``: whether the model generates, a token at a time."""
    faster = ratio(times[stored], times[WIDENED], decodes)
    if faster > 1:
        return DtypeChoice(
            WIDENED, f"stored in {stored}; this CPU computes float32 {faster:.1f} times as fast"
        )
    return DtypeChoice(stored)
