"""Sizes and durations as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
SIZE_EXPECTED = "a size such as 18GiB, 512MB or a number of bytes"
DURATION_EXPECTED = "a duration such as 90s, 5m or a number of seconds"


def parse_size(value: object) -> int:
    """Bytes. ``18GiB`` and ``18G`` count in 1024, ``18GB`` in 1000. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(SIZE_EXPECTED)
    match = _SIZE.fullmatch(str(value).strip())
    if not match:
        raise ValueError(SIZE_EXPECTED)
    number, prefix, binary, unit = match.groups()
    base = 1000 if unit and prefix and not binary else 1024
    size = int(float(number) * base ** _POWERS[prefix.lower()])
    if size <= 0:
        raise ValueError(SIZE_EXPECTED)
    return size


def parse_duration(value: object) -> float:
    """Seconds, at least 0. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(DURATION_EXPECTED)
    match = _DURATION.fullmatch(str(value).strip())
    if not match:
        raise ValueError(DURATION_EXPECTED)
    return float(match[1]) * _SECONDS[match[2] or "s"]
