"""The ways to choose a replica for a request, by name. ``controller/dispatch.py`` says what each does. Pure."""

from __future__ import annotations

from typing import Literal, get_args

DispatchMethod = Literal["shortest_queue", "lottery", "round_robin", "prefix"]
METHODS: tuple[DispatchMethod, ...] = get_args(DispatchMethod)
DEFAULT: DispatchMethod = "shortest_queue"


def dispatch_method(text: str) -> DispatchMethod:
    """``text``, known to be one of METHODS. Raises ValueError."""
    for method in METHODS:
        if method == text:
            return method
    raise ValueError(f"unknown dispatch method {text!r}; known: {', '.join(METHODS)}")
