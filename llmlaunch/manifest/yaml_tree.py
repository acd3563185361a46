"""YAML text → plain values, with the place of each in the file, variables filled in, and bounds on what a file may do.

Scalars follow YAML 1.2's core schema: only true and false are booleans, so that a model may be called ``no`` or ``on``, and
``1:30`` is a text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.error import Mark
from yaml.events import AliasEvent, ScalarEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from llmlaunch.errors import ManifestError, Problem
from llmlaunch.manifest.file import MAX_BYTES

Path = tuple[str | int, ...]
MAX_VALUES = 10_000
MAX_DEPTH = 40
_MAX_DIGITS = 300  # beyond this Python itself refuses to convert, sooner or later

_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\{)")
_TAG = re.compile(r"tag:yaml\.org,2002:\w+|!")
_TEXT_TAG = "tag:yaml.org,2002:str"
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULL = {"", "~", "null", "Null", "NULL"}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class Filled(str):
    """A quoted text with a variable's value in it. Where a number belongs, :func:`typed` may still make it one."""

    __slots__ = ()


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
    """Values that cannot be told, each with its problem; what else is wrong with them is no news."""
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

    def silenced(self, path: Path) -> bool:
        """Whether the value at ``path`` could not be read, which has been told."""
        return any(path[:end] in self.broken for end in range(1, len(path) + 1))

    def problem(
        self, path: Path, message: str, *, expected: str = "", suggestion: str = "", key: bool = False
    ) -> None:
        """Note a mistake at ``path``, or at its key when ``key`` is set."""
        line, column = self.place(path, key=key)
        self.problems.append(Problem(self.file, line, column, message, expected, suggestion))


def read(text: str, file: str, env: Mapping[str, str]) -> YamlDocument:
    """The values of one YAML document; its mistakes are in ``YamlDocument.problems``. Raises ManifestError if it cannot be read at all."""
    if len(text) > MAX_BYTES:
        raise ManifestError([too_large(file)])
    try:
        loader, node = _composed(text, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _refusal(file, line, column, f"YAML syntax: {_plain(error, text, line)}") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise _refusal(file, line, column, "a character that YAML does not allow") from None
    if node is None:
        raise _refusal(file, 1, 1, "the file is empty", "models: with a list under it")
    tree = YamlDocument(file)
    tree.data = _Expander(tree, env, loader).expand(node, (), 0)
    return tree


def _composed(text: str, file: str) -> tuple[_Loader, Node | None]:
    loader = _Loader(text, file)
    try:
        return loader, loader.get_single_node()
    except (ValueError, OverflowError):
        # What PyYAML lets out of an escape such as "\UFFFFFFFF".
        line, column = _place(loader.get_mark())
        raise _refusal(file, line, column, "YAML syntax: an invalid escape sequence") from None
    finally:
        loader.dispose()


def too_large(file: str) -> Problem:
    """The mistake of a file with more than MAX_BYTES."""
    return Problem(file, 0, 0, f"the file is larger than {MAX_BYTES >> 20} MiB")


def _refusal(file: str, line: int, column: int, message: str, expected: str = "") -> ManifestError:
    return ManifestError([Problem(file, line, column, message, expected)])


def _plain(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
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


class _Loader(yaml.SafeLoader):
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
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        self._count += 1
        if self._depth > MAX_DEPTH:
            raise _too_deep(self.file, mark)
        if self._count > 2 * MAX_VALUES:
            raise _too_many(self.file, mark)
        if isinstance(event, AliasEvent):
            self.aliases[id(parent), id(index) if isinstance(index, Node) else index] = mark
        self._depth += 1
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, ScalarEvent) and event.tag == _TEXT_TAG:
            self.as_text.add(id(node))
        return node


def _too_deep(file: str, mark: Mark) -> ManifestError:
    return _refusal(file, *_place(mark), f"nested deeper than {MAX_DEPTH} levels")


def _too_many(file: str, mark: Mark) -> ManifestError:
    return _refusal(file, *_place(mark), f"more than {MAX_VALUES} values once aliases are expanded")


def _inside_itself(file: str, mark: Mark) -> ManifestError:
    return _refusal(file, *_place(mark), "this alias refers to a value that contains it")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A value of a mapping, and where its key stands."""

    place: tuple[int, int]
    node: Node
    alias: Mark | None


class _Expander:
    """Turns nodes into values, counting them: a few aliases can name millions."""

    def __init__(self, tree: YamlDocument, env: Mapping[str, str], loader: _Loader) -> None:
        self.tree = tree
        self.env = env
        self.aliases = loader.aliases
        self.as_text = loader.as_text
        self.count = 0
        self.open: set[int] = set()
        """Ids of the lists and mappings that are being expanded."""

    def expand(self, node: Node, path: Path, depth: int, alias: Mark | None = None) -> Any:
        """The value of ``node``, which stands at ``alias`` when that is not where it was written."""
        mark = alias or node.start_mark
        self._spend(mark, depth)
        if id(node) in self.open:
            raise _inside_itself(self.tree.file, mark)
        self.tree.values[path] = _place(mark)
        if not _TAG.fullmatch(node.tag):
            self.tree.problem(path, f"unsupported YAML tag {node.tag}")
        if not isinstance(node, MappingNode | SequenceNode):
            return self._scalar(node, path)
        self.open.add(id(node))
        try:
            return self._collection(node, path, depth)
        finally:
            self.open.discard(id(node))

    def _collection(self, node: MappingNode | SequenceNode, path: Path, depth: int) -> Any:
        if isinstance(node, MappingNode):
            found = {}
            for key, entry in self._entries(node, depth).items():
                self.tree.keys[(*path, key)] = entry.place
                found[key] = self.expand(entry.node, (*path, key), depth + 1, entry.alias)
            return found
        return [
            self.expand(item, (*path, i), depth + 1, self.aliases.get((id(node), i)))
            for i, item in enumerate(node.value)
        ]

    def _spend(self, mark: Mark, depth: int) -> None:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _too_many(self.tree.file, mark)
        if depth > MAX_DEPTH:
            raise _too_deep(self.tree.file, mark)

    def _entries(self, node: MappingNode, depth: int) -> dict[str, _Entry]:
        """The keys of a mapping, with what ``<<`` brings in; its own ones override that, and of several sources the first counts."""
        merged: dict[str, _Entry] = {}
        own: dict[str, _Entry] = {}
        for key_node, value_node in node.value:
            place = _place(key_node.start_mark)
            if _is_merge(key_node):
                for source in value_node.value if isinstance(value_node, SequenceNode) else [value_node]:
                    self._spend(key_node.start_mark, depth)
                    if id(source) in self.open:
                        raise _inside_itself(self.tree.file, key_node.start_mark)
                    if isinstance(source, MappingNode):
                        merged = self._entries(source, depth + 1) | merged
                    else:
                        self._note(place, "<< merges mappings only")
            elif not isinstance(key_node, ScalarNode) or not _is_clean(key_node.value):
                self._note(place, "a key must be a plain string")
            elif key_node.value in own:
                self._note(place, f"duplicate key {key_node.value!r}")
            else:
                alias = self.aliases.get((id(node), id(key_node)))
                own[key_node.value] = _Entry(place, value_node, alias)
        return merged | own

    def _note(self, place: tuple[int, int], message: str) -> None:
        self.tree.problems.append(Problem(self.tree.file, *place, message))

    def _scalar(self, node: Node, path: Path) -> Any:
        written = node.value
        text = self._fill(written, path) if "$" in written else written
        self.tree.texts[path] = text
        if not _is_clean(text):
            self.tree.problem(path, "this value contains a character that text cannot hold")
            self.tree.broken.add(path)
        plain = isinstance(node, ScalarNode) and node.style is None and id(node) not in self.as_text
        if plain:
            return typed(text)
        return Filled(text) if text != written else text

    def _fill(self, text: str, path: Path) -> str:
        def one(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            if match[1] is None:
                self.tree.problem(
                    path,
                    "${ does not start a variable here",
                    expected="${NAME}, ${NAME:-default}, or $$ for a dollar sign",
                )
                self.tree.broken.add(path)
                return ""
            return self._variable(match[1], match[2], path)

        def name(match: re.Match[str]) -> str:
            return (
                f"${{{match[1]}}}"
                if self.env.get(match[1] or "")
                else match[2] or match[0].replace("$$", "$")
            )

        filled = _VARIABLE.sub(one, text)
        if path in self.tree.from_environment:
            self.tree.shown[path] = _VARIABLE.sub(name, text)
        return filled

    def _variable(self, name: str, default: str | None, path: Path) -> str:
        """Its value, else ``default``; an empty one counts as unset for a default, as in a shell."""
        value = self.env.get(name)
        if value:
            self.tree.from_environment.setdefault(path, set()).add(name)
            self.tree.secrets.add(value)
            return value
        if default is not None and "${" in default:
            self.tree.broken.add(path)
            self.tree.problem(
                path,
                f"the default of ${{{name}}} contains another variable",
                expected="plain text after :-, without ${",
            )
            return ""
        if default is not None:
            return default
        if value is None:
            self.tree.broken.add(path)
            self.tree.problem(
                path,
                f"the environment variable {name} is not set",
                expected=f"it to be set, or ${{{name}:-default}}",
            )
        return ""


def _place(mark: Mark) -> tuple[int, int]:
    return mark.line + 1, mark.column + 1


def _is_merge(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.value == "<<" and node.style is None


def _is_clean(text: str) -> bool:
    """Neither NUL, which no argv and no path can hold, nor half of a surrogate pair, which no file can."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def typed(text: str) -> Any:
    """A plain scalar's value under the core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text) and any(c in text for c in ".eE"):
        number = float(text)
        return (
            number if math.isfinite(number) else text
        )  # 1e999: no engine could be told what Python makes of it
    return text
