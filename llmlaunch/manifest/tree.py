"""YAML text → plain values, with the place of each in the file, variables filled in, and bounds on what a file may do.

Scalars follow YAML 1.2's core schema: only true and false are booleans, so that a model may be called ``no`` or ``on``, and
``1:30`` is a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from llmlaunch.errors import ManifestError, Problem

Path = tuple[str | int, ...]
MAX_BYTES = 1 << 20
MAX_VALUES = 10_000
MAX_DEPTH = 40

_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\{)")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULL = {"", "~", "null", "Null", "NULL"}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


@dataclass(slots=True)
class Tree:
    """``data`` and what is known about each of its values, by path from the root."""

    file: str
    data: Any = None
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column (from 1) where a value starts."""
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column of the key that leads to a path."""
    texts: dict[Path, str] = field(default_factory=dict)
    """A scalar's own text, variables filled in."""
    from_environment: set[Path] = field(default_factory=set)
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

    def problem(
        self, path: Path, message: str, *, expected: str = "", suggestion: str = "", key: bool = False
    ) -> None:
        line, column = self.place(path, key=key)
        self.problems.append(Problem(self.file, line, column, message, expected, suggestion))


def read(text: str, file: str, env: Mapping[str, str]) -> Tree:
    """The values of one YAML document. Raises ManifestError where nothing can be read at all; lesser mistakes are ``Tree.problems``."""
    if len(text.encode()) > MAX_BYTES:
        raise ManifestError([Problem(file, 0, 0, f"the file is larger than {MAX_BYTES >> 20} MiB")])
    node = _compose(text, file)
    tree = Tree(file)
    if node is None:
        raise ManifestError([Problem(file, 1, 1, "the file is empty", "a list of models under models:")])
    tree.data = _Expander(tree, env).expand(node, (), 0)
    return tree


def _compose(text: str, file: str) -> Node | None:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ManifestError(
            [Problem(file, line, column, f"YAML syntax: {_plain(error, text, line)}")]
        ) from None
    except yaml.YAMLError as error:
        line, column = 1, 1
        if isinstance(error, yaml.reader.ReaderError):
            before = text[: error.position]
            line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
            raise ManifestError(
                [Problem(file, line, column, "a character that YAML does not allow")]
            ) from None
        raise ManifestError([Problem(file, line, column, f"YAML syntax: {error}")]) from None
    except RecursionError:
        raise ManifestError([Problem(file, 1, 1, f"nested deeper than {MAX_DEPTH} levels")]) from None
    finally:
        loader.dispose()
    return node


def _plain(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    lines = text.splitlines()
    if line <= len(lines) and "\t" in lines[line - 1][: len(lines[line - 1]) - len(lines[line - 1].lstrip())]:
        return "a tab; YAML indents with spaces"
    if error.problem and "another document" in error.problem:
        return "a second document; a manifest is one document"
    return " ".join(str(part) for part in (error.problem, error.context) if part)


class _Expander:
    """Turns nodes into values, counting them: a few aliases can name millions."""

    def __init__(self, tree: Tree, env: Mapping[str, str]) -> None:
        self.tree = tree
        self.env = env
        self.count = 0

    def expand(self, node: Node, path: Path, depth: int) -> Any:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        self.count += 1
        if self.count > MAX_VALUES:
            raise ManifestError(
                [
                    Problem(
                        self.tree.file,
                        line,
                        column,
                        f"more than {MAX_VALUES} values once aliases are expanded",
                    )
                ]
            )
        if depth > MAX_DEPTH:
            raise ManifestError(
                [Problem(self.tree.file, line, column, f"nested deeper than {MAX_DEPTH} levels")]
            )
        self.tree.values[path] = (line, column)
        if isinstance(node, MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, SequenceNode):
            return [self.expand(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: Path, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if key is None:
                self.tree.problems.append(Problem(self.tree.file, *mark, "a key must be a plain word"))
                continue
            if key == "<<" and key_node.style is None:
                for source in value_node.value if isinstance(value_node, SequenceNode) else [value_node]:
                    found = self.expand(source, path, depth + 1)
                    if isinstance(found, dict):
                        merged = found | merged
                    else:
                        self.tree.problems.append(Problem(self.tree.file, *mark, "<< merges mappings only"))
                continue
            if key in own:
                self.tree.problems.append(
                    Problem(self.tree.file, *mark, f"the key {key!r} stands here twice")
                )
                continue
            self.tree.keys[(*path, key)] = mark
            own[key] = self.expand(value_node, (*path, key), depth + 1)
        self.tree.values[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        return merged | own

    def _scalar(self, node: Node, path: Path) -> Any:
        text = node.value
        filled = self._fill(text, path) if "$" in text else text
        self.tree.texts[path] = filled
        if not node.tag.startswith("tag:yaml.org,2002:"):
            self.tree.problem(path, f"the tag {node.tag} means nothing here")
        quoted = isinstance(node, ScalarNode) and node.style is not None
        tagged_text = node.tag == "tag:yaml.org,2002:str" and "$" not in text
        if quoted or tagged_text:
            return filled
        return _typed(filled)

    def _fill(self, text: str, path: Path) -> str:
        def one(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            name, default = match[1], match[2]
            if name is None:
                self.tree.problem(
                    path,
                    "${ starts no variable here",
                    expected="${NAME}, ${NAME:-default}, or $$ for a dollar sign",
                )
                return ""
            value = self.env.get(name)
            if value:
                self.tree.from_environment.add(path)
                self.tree.secrets.add(value)
                return value
            if default is not None:
                return default
            if value is None:
                self.tree.problem(
                    path,
                    f"the environment variable {name} is not set",
                    expected=f"it to be set, or ${{{name}:-default}}",
                )
                self.tree.from_environment.add(path)
            return ""

        return _VARIABLE.sub(one, text)


def _typed(text: str) -> Any:
    """A plain scalar's value under the core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text) and any(c in text for c in ".eE"):
        return float(text)
    return text
