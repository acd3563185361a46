"""Earlier responses, up to a size limit. In memory: they are lost when the worker ends."""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from llmlaunch.controller.response_ids import response_id

MAX_TURNS = 1000
MAX_CHARACTERS = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """One response with the conversation that led to it."""

    messages: tuple[dict[str, Any], ...]
    """In chat's format, including the answer but not the instructions: those apply to one response only."""
    response: dict[str, Any]


class ResponseStore:
    """The most recently used turns, by response id. Used in the event loop alone."""

    def __init__(
        self, worker_name: str = "", max_turns: int = MAX_TURNS, max_characters: int = MAX_CHARACTERS
    ) -> None:
        self._worker_name = worker_name
        self._max_turns = max_turns
        self._max_characters = max_characters
        self._turns: OrderedDict[str, tuple[StoredTurn, int]] = OrderedDict()
        self._characters = 0

    def __len__(self) -> int:
        return len(self._turns)

    def new_id(self) -> str:
        """Return a new id from which a gateway can tell that this worker has the response."""
        return response_id(self._worker_name, secrets.token_bytes(20))

    def put(self, turn: StoredTurn) -> None:
        """Store ``turn``; drop the least recently used turns beyond the limits."""
        name = turn.response["id"]
        self.remove(name)
        size = len(json.dumps((turn.messages, turn.response)))
        self._turns[name] = (turn, size)
        self._characters += size
        while len(self._turns) > self._max_turns or self._characters > self._max_characters:
            self.remove(next(iter(self._turns)))

    def get(self, name: str) -> StoredTurn | None:
        """Return the turn with the response id ``name``, if it is still stored."""
        found = self._turns.get(name)
        if found is None:
            return None
        self._turns.move_to_end(name)
        return found[0]

    def remove(self, name: str) -> bool:
        """Remove the turn with the response id ``name``; return whether it was there."""
        found = self._turns.pop(name, None)
        if found is None:
            return False
        self._characters -= found[1]
        return True
