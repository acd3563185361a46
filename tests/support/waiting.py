"""Wait for a condition with a deadline: the only synchronisation tests use."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T | Literal[False] | None],
    deadline_s: float = 10.0,
    what: str = "",
    every_s: float = 0.02,
) -> T:
    """Return the first truthy value of ``condition()``; fail after ``deadline_s`` seconds, with the last value seen."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s} s: {what or condition}; last value {value!r}")
        time.sleep(every_s)
