"""Sizes and durations as people write them."""

from __future__ import annotations

import math

import pytest

from llmlaunch.manifest import sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("18GiB", 18 << 30),
        ("512MB", 512 * 10**6),
        ("1.5G", 3 << 29),
        (1024, 1024),
        ("1 tib", 1 << 40),
        ("2k", 2048),
        ("7b", 7),
        (2.0, 2),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert sizes.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        0,
        -1,
        True,
        None,
        "",
        "G",
        "1 GB x",
        "1iB",
        "1e9",
        "-3G",
        [],
        "0.1",
        "9" * 400,
        math.inf,
        math.nan,
        "٣G",
    ],
)
def test_no_sizes(text: object) -> None:
    with pytest.raises(ValueError, match="a size such as"):
        sizes.parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("250ms", 0.25), (3, 3), (0.5, 0.5), (0, 0)],
)
def test_durations(text: object, seconds: float) -> None:
    assert sizes.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", [-1, True, None, "", "s", "1d", "1:30", "9" * 400, math.inf, math.nan, "31000000"]
)
def test_no_durations(text: object) -> None:
    with pytest.raises(ValueError, match="a duration such as"):
        sizes.parse_duration(text)
