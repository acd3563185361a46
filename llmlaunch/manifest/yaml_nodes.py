"""YAML text → nodes with their places, under bounds on the size and depth of what a file may hold."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.error import Mark
from yaml.events import AliasEvent, ScalarEvent
from yaml.nodes import Node

from llmlaunch.errors import ManifestError, Problem
from llmlaunch.manifest.file import MAX_BYTES

MAX_VALUES = 10_000
"""Keys and values of a manifest, each alias counted as often as it is used."""
MAX_DEPTH = 40
_TEXT_TAG = "tag:yaml.org,2002:str"


def compose(text: str, file: str) -> tuple[Node, Loader]:
    """The root of the one document in ``text``, and the loader with what nodes do not say. Raises ManifestError."""
    if len(text) > MAX_BYTES:
        raise ManifestError([too_large(file)])
    try:
        loader, node = _composed(text, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = place(mark) if mark else (1, 1)
        raise _refusal(file, line, column, f"YAML syntax: {_syntax_error(error, text, line)}") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise _refusal(file, line, column, "a character that YAML does not allow") from None
    if node is None:
        raise _refusal(file, 1, 1, "the file is empty", "models: with a list under it")
    return node, loader


class Loader(yaml.SafeLoader):
    """PyYAML's, with a bound on size and depth while it composes, and the places of aliases."""

    def __init__(self, text: str, file: str) -> None:
        super().__init__(text)
        self.file = file
        self.aliases: dict[tuple[int, int], Mark] = {}
        """By the ids of the node that holds it, and of the key (or the index) that leads to it."""
        self.as_text: set[int] = set()
        """Ids of the nodes with a tag ``!!str`` of their own."""
        self._count = 0
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """PyYAML calls this for every node, aliases included. Raises ManifestError beyond the bounds."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        self._count += 1
        if self._depth > MAX_DEPTH:
            raise too_deep(self.file, mark)
        if self._count > 2 * MAX_VALUES:
            raise too_many(self.file, mark)
        if isinstance(event, AliasEvent):
            self.aliases[id(parent), id(index) if isinstance(index, Node) else index] = mark
        self._depth += 1
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, ScalarEvent) and event.tag == _TEXT_TAG:
            self.as_text.add(id(node))
        return node


def too_deep(file: str, mark: Mark) -> ManifestError:
    """The mistake of nesting beyond MAX_DEPTH, to be raised."""
    return _refusal(file, *place(mark), f"nested deeper than {MAX_DEPTH} levels")


def too_many(file: str, mark: Mark) -> ManifestError:
    """The mistake of more than MAX_VALUES values, to be raised."""
    return _refusal(file, *place(mark), f"more than {MAX_VALUES} values once aliases are expanded")


def inside_itself(file: str, mark: Mark) -> ManifestError:
    """The mistake of an alias within the value that it names, to be raised."""
    return _refusal(file, *place(mark), "this alias refers to a value that contains it")


def too_large(file: str) -> Problem:
    """The mistake of a file with more than MAX_BYTES."""
    return Problem(file, 0, 0, f"the file is larger than {MAX_BYTES >> 20} MiB")


def place(mark: Mark) -> tuple[int, int]:
    """Line and column, from 1."""
    return mark.line + 1, mark.column + 1


def _composed(text: str, file: str) -> tuple[Loader, Node | None]:
    loader = Loader(text, file)
    try:
        return loader, loader.get_single_node()
    except (ValueError, OverflowError):
        # What PyYAML lets out of an escape such as "\UFFFFFFFF".
        line, column = place(loader.get_mark())
        raise _refusal(file, line, column, "YAML syntax: an invalid escape sequence") from None
    finally:
        loader.dispose()


def _refusal(file: str, line: int, column: int, message: str, expected: str = "") -> ManifestError:
    return ManifestError([Problem(file, line, column, message, expected)])


def _syntax_error(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    lines = text.splitlines()
    here = lines[line - 1] if line <= len(lines) else ""
    if "\t" in here[: len(here) - len(here.lstrip())]:
        return "a tab; YAML indents with spaces"
    if "another document" in (error.problem or ""):
        return "a second document; a manifest is one document"
    if "${" in here and "flow" in (error.context or ""):
        return 'inside [ ] and { } a variable needs quotes: "${NAME}"'
    said = " ".join(str(part) for part in (error.problem, error.context) if part)
    return said.replace("'<stream end>'", "the end of the file")
