"""Suggestions for "did you mean …?". Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 100
"""Characters of a word that are looked at: comparing takes time that grows with the square of its length."""


def nearest(word: str, choices: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The choice most similar to ``word``, ignoring case; empty when none is near.

    ``cutoff``: how near one must be, from 0 (anything) to 1 (equal), as in :func:`difflib.get_close_matches`.
    """
    return next(iter(closest(word, choices, 1, cutoff=cutoff)), "")


def closest(word: str, choices: Iterable[str], most: int, *, cutoff: float = 0.6) -> list[str]:
    """The ``most`` choices that are most like ``word``, the best one first; see :func:`nearest`."""
    spelled = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower()[:_LONGEST], spelled, n=most, cutoff=cutoff)
    return [spelled[key] for key in found]
