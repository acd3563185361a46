"""Sizes and durations as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)(b?)", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h)?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
_MOST_BYTES = 1 << 50
_MOST_SECONDS = 30 * 86_400.0
SIZE_EXPECTED = "a size such as 18GiB, 512MB or a number of bytes"
DURATION_EXPECTED = "a duration such as 90s, 5m or a number of seconds, at most 30 days"


def parse_size(value: object) -> int:
    """Bytes, from 1 to 1 PiB. ``18GiB`` and ``18G`` count in 1024, ``18GB`` in 1000. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(SIZE_EXPECTED)
    match = _SIZE.fullmatch(_written(value))
    if not match or (match[3] and not match[2]):
        raise ValueError(SIZE_EXPECTED)
    number, prefix, binary, unit = match.groups()
    base = 1000 if unit and not binary else 1024
    size = float(number) * base ** _POWERS[prefix.lower()]
    if not 1 <= size <= _MOST_BYTES:
        raise ValueError(SIZE_EXPECTED)
    return int(size)


def parse_duration(value: object) -> float:
    """Seconds, from 0 to 30 days. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(DURATION_EXPECTED)
    match = _DURATION.fullmatch(_written(value))
    if not match:
        raise ValueError(DURATION_EXPECTED)
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _MOST_SECONDS:
        raise ValueError(DURATION_EXPECTED)
    return seconds


def _written(value: float | str) -> str:
    # Fixed point: Python would write 1e20 as such, and 0.00001 as 1e-05.
    return f"{value:f}" if isinstance(value, float) else str(value).strip()
