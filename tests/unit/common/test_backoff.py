"""Exponential backoff."""

from __future__ import annotations

import pytest

from llmlaunch.common.backoff import delay, equal_jitter


@pytest.mark.parametrize(
    ("failures", "expected"), [(0, 0.5), (1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 5.0), (10**6, 5.0)]
)
def test_it_doubles_up_to_a_limit(failures: int, expected: float) -> None:
    assert delay(failures, 0.5, 5.0) == expected


def test_a_limit_below_the_first_delay_holds() -> None:
    assert delay(1, 2.0, 0.25) == 0.25


def test_jitter_takes_half_at_most() -> None:
    assert (equal_jitter(4.0, 0.0), equal_jitter(4.0, 0.5), equal_jitter(4.0, 1.0)) == (2.0, 3.0, 4.0)
