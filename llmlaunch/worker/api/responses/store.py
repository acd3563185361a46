"""Earlier responses and their items, up to a size limit. In memory: they are lost when the worker ends."""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmlaunch.controller.response_ids import marked_id
from llmlaunch.worker.api.responses.items import kind_of
from llmlaunch.worker.errors import NotFound

MAX_TURNS = 1000
MAX_CHARACTERS = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """One response with the conversation that led to it."""

    input: tuple[dict[str, Any], ...]
    """All items before the output, each with an id. Without the instructions: those apply to one response only."""
    response: dict[str, Any]

    @property
    def items(self) -> list[dict[str, Any]]:
        """The whole conversation, output included."""
        return [*self.input, *self.response["output"]]


class ResponseStore:
    """The most recently used turns, by response id. Used in the event loop alone, apart from :meth:`new_id`."""

    def __init__(
        self, worker_name: str = "", max_turns: int = MAX_TURNS, max_characters: int = MAX_CHARACTERS
    ) -> None:
        self._worker_name = worker_name
        self._max_turns = max_turns
        self._max_characters = max_characters
        self._turns: OrderedDict[str, tuple[StoredTurn, int]] = OrderedDict()
        self._items: dict[str, dict[str, dict[str, Any]]] = {}
        """Item id → response id of each turn that has the item → the item. The oldest turn comes first."""
        self._characters = 0

    def __len__(self) -> int:
        return len(self._turns)

    def new_id(self, prefix: str) -> str:
        """Return a new id from which a gateway can tell that this worker has the response or the item."""
        return marked_id(prefix, self._worker_name, secrets.token_bytes(20))

    def put(self, turn: StoredTurn) -> None:
        """Store ``turn``; drop the least recently used turns beyond the limits."""
        name = turn.response["id"]
        self.remove(name)
        size = len(json.dumps((turn.input, turn.response)))
        self._turns[name] = (turn, size)
        self._characters += size
        for item in turn.items:
            self._items.setdefault(item["id"], {})[name] = item
        while len(self._turns) > self._max_turns or self._characters > self._max_characters:
            self.remove(next(iter(self._turns)))

    def get(self, name: str) -> StoredTurn | None:
        """Return the turn with the response id ``name``, if it is still stored."""
        found = self._turns.get(name)
        if found is None:
            return None
        self._turns.move_to_end(name)
        return found[0]

    def item(self, identity: str) -> dict[str, Any] | None:
        """Return the item with the id ``identity``, if a turn that has it is still stored."""
        for name, item in self._items.get(identity, {}).items():
            self._turns.move_to_end(name)
            return item
        return None

    def resolved(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return ``items`` with the items that references are to in their place. Raises NotFound for an unknown one."""
        return [
            self._referenced(item, at) if kind_of(item) == "item_reference" else item
            for at, item in enumerate(items)
        ]

    def _referenced(self, reference: dict[str, Any], at: int) -> dict[str, Any]:
        identity = reference.get("id")
        found = self.item(identity) if isinstance(identity, str) else None
        if found is None:
            raise NotFound(
                f"input[{at}]: the item {identity!r} was not found: it has expired, its response had store: false, or "
                "another replica made it. Send the item itself",
                param="input",
                code="item_not_found",
            )
        return found

    def remove(self, name: str) -> bool:
        """Remove the turn with the response id ``name``; return whether it was there."""
        found = self._turns.pop(name, None)
        if found is None:
            return False
        turn, size = found
        self._characters -= size
        for identity in {item["id"] for item in turn.items}:
            holders = self._items[identity]
            del holders[name]
            if not holders:
                del self._items[identity]
        return True
