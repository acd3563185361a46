"""The values of a YAML document, and what is known about each: its place, its text, where it came from. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmlaunch.errors import Problem

Path = tuple[str | int, ...]
"""From the root to a value: keys of mappings and indices of lists."""


@dataclass(slots=True)
class YamlDocument:
    """``data`` and what is known about each of its values, by path from the root."""

    file: str
    data: Any = None
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column (from 1) where a value starts."""
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column of the key that leads to a path."""
    texts: dict[Path, str] = field(default_factory=dict)
    """A scalar's own text, variables filled in."""
    from_environment: dict[Path, set[str]] = field(default_factory=dict)
    """Where variables brought values in, and which; none of the values is shown in a message."""
    shown: dict[Path, str] = field(default_factory=dict)
    """The texts of those, with ``${NAME}`` in the place of values."""
    broken: set[Path] = field(default_factory=set)
    """Values that could not be read and already have a problem; no other is reported for them."""
    secrets: set[str] = field(default_factory=set)
    """Values that variables brought in."""
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Where ``path`` stands, or its nearest ancestor that stands anywhere; (1, 1) for an empty file."""
        table = self.keys if key else self.values
        for end in range(len(path), -1, -1):
            for found in (table.get(path[:end]), self.values.get(path[:end])):
                if found:
                    return found
        return (1, 1)

    def hidden(self, path: Path) -> bool:
        """Whether the value at ``path`` came from the environment, whole or in part."""
        return any(path[:end] in self.from_environment for end in range(1, len(path) + 1))

    def as_written(self, path: Path, value: Any) -> Any:
        """``value``, which stands at ``path``, with ``${NAME}`` where variables brought something in."""
        if isinstance(value, dict):
            return {key: self.as_written((*path, key), item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.as_written((*path, index), item) for index, item in enumerate(value)]
        return self.shown.get(path, value)

    def variables(self, path: Path) -> set[str]:
        """Names of the variables that brought something into the value at ``path``, or anywhere inside it."""
        found = (names for at, names in self.from_environment.items() if at[: len(path)] == path)
        return set().union(*found)

    def unreadable(self, path: Path) -> bool:
        """Whether the value at ``path`` could not be read, which is a problem already."""
        return any(path[:end] in self.broken for end in range(1, len(path) + 1))

    def problem(
        self, path: Path, message: str, *, expected: str = "", suggestion: str = "", key: bool = False
    ) -> None:
        """Note a mistake at ``path``, or at its key when ``key`` is set."""
        line, column = self.place(path, key=key)
        self.problems.append(Problem(self.file, line, column, message, expected, suggestion))
