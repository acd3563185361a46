"""The times and counts that Ollama's responses carry. Pure: the clocks come in as functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Clocks:
    """What tells the time."""

    monotonic: Callable[[], float]
    """Seconds; for durations."""
    wall: Callable[[], float]
    """Seconds since 1970; for dates."""


def date(seconds: float) -> str:
    """The moment ``seconds`` after 1970, as in RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class Stopwatch:
    """The durations of one response. It begins to run when it is made."""

    __slots__ = ("_began", "_clocks", "_spoke")

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._began = clocks.monotonic()
        self._spoke: float | None = None

    def date(self) -> str:
        """The value of ``created_at`` now."""
        return date(self._clocks.wall())

    def spoke(self) -> None:
        """Content came; the first time ends the evaluation of the prompt."""
        if self._spoke is None:
            self._spoke = self._clocks.monotonic()

    def statistics(self, usage: dict[str, Any], *, generated: bool = True) -> dict[str, int]:
        """Durations in nanoseconds, and the tokens in OpenAI's ``usage``.

        A response that came as a whole does not tell when its first token was there: its prompt's evaluation counts as 0.
        """
        now = self._clocks.monotonic()
        found = {"total_duration": _ns(now - self._began), "load_duration": 0}
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(prompt, int):
            found["prompt_eval_count"] = prompt
        if not generated:
            return found
        spoke = self._began if self._spoke is None else self._spoke
        found["prompt_eval_duration"] = _ns(spoke - self._began)
        if isinstance(completion, int):
            found["eval_count"] = completion
        return found | {"eval_duration": _ns(now - spoke)}


def _ns(seconds: float) -> int:
    return max(0, round(seconds * 1e9))
