"""What an engine's thread runs: a strategy that turns requests into tokens, step by step."""

from __future__ import annotations

from typing import Protocol

from llmlaunch.worker.output.answer import AnswerBuilder
from llmlaunch.worker.types import EngineLoad, GenerationOutput


class Strategy(Protocol):
    """Used by the engine's thread alone."""

    mode: str
    """How requests share the model, for people."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        ...

    def add(self, answer: AnswerBuilder) -> None:
        """Take a request. May raise ApiError."""
        ...

    def remove(self, request_id: str) -> None:
        """Drop a request; it yields no further output."""
        ...

    def step(self) -> list[tuple[str, GenerationOutput]]:
        """Compute one step; return outputs by request id. May raise anything; the requests in it then fail."""
        ...

    def recover(self) -> None:
        """Reset after a failed step, when all requests were removed. Raises DeviceLostError if that is impossible."""
        ...

    def load(self) -> EngineLoad:
        """How busy it is now. Also called from other threads."""
        ...
