"""Look-ups in a GGUF header under its architecture's prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmlaunch.models.reading.gguf_header import Length
from llmlaunch.models.reading.values import integer, numbers


class GgufKeys:
    """``<architecture>.<name>`` as llama.cpp's conversion writes them; values of a wrong type count as absent."""

    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self.metadata = metadata
        self.architecture = architecture

    def get(self, name: str) -> Any:
        """The value as it is, or None."""
        return self.metadata.get(f"{self.architecture}.{name}")

    def number(self, name: str) -> int | None:
        """A positive whole number; of a list, one value a layer, the largest."""
        return integer(self.metadata, f"{self.architecture}.{name}")

    def numbers(self, name: str) -> list[int]:
        """All values of a list; of a single number, this."""
        value = self.get(name)
        return [value] if type(value) is int else numbers(value)

    def at(self, name: str, index: int) -> int | None:
        """The value for the layer ``index``: a list's entry, or the one number for all. 0 is a value."""
        values = self.numbers(name)
        if isinstance(self.get(name), list):
            return values[index] if index < len(values) else None
        return values[0] if values else None

    def length(self, key: str) -> int | None:
        """How many entries the list under the whole ``key`` has."""
        value = self.metadata.get(key)
        if isinstance(value, Length):
            return value.n
        return len(value) if isinstance(value, list) else None
