"""What an engine's thread runs: a way to get from requests to tokens, one step at a time."""

from __future__ import annotations

from typing import Protocol

from llmlaunch.worker.engine.types import Load, Piece
from llmlaunch.worker.output.answer import Answer


class Strategy(Protocol):
    """Called by the engine's thread alone."""

    mode: str
    """For people: how requests share the model."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        ...

    def add(self, answer: Answer) -> None:
        """Take a request. May raise ApiError."""
        ...

    def remove(self, request_id: str) -> None:
        """Forget a request; nothing more comes of it."""
        ...

    def step(self) -> list[tuple[str, Piece]]:
        """Compute a little; return news by request. May raise anything: the requests in it are then failed."""
        ...

    def recover(self) -> None:
        """After a step that raised, and after every request was removed: be as new. Raises CanNotGoOn where nothing can."""
        ...

    def load(self) -> Load: ...
