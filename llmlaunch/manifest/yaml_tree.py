"""YAML text → plain values: aliases and merge keys expanded, variables filled in, with the place of each in the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yaml.error import Mark
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from llmlaunch.errors import Problem
from llmlaunch.manifest import yaml_nodes
from llmlaunch.manifest.yaml_document import Path, YamlDocument
from llmlaunch.manifest.yaml_scalars import FilledText, is_clean, typed

_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\{)")
_TAG = re.compile(r"tag:yaml\.org,2002:\w+|!")


def read(text: str, file: str, env: Mapping[str, str]) -> YamlDocument:
    """The values of one YAML document; its mistakes are in ``YamlDocument.problems``. Raises ManifestError if it cannot be read at all."""
    node, loader = yaml_nodes.compose(text, file)
    tree = YamlDocument(file)
    tree.data = _Expander(tree, env, loader).expand(node, (), 0)
    return tree


@dataclass(frozen=True, slots=True)
class _Entry:
    """A value of a mapping, and where its key stands."""

    place: tuple[int, int]
    node: Node
    alias: Mark | None


class _Expander:
    """Turns nodes into values, counting them: a few aliases can name millions."""

    def __init__(self, tree: YamlDocument, env: Mapping[str, str], loader: yaml_nodes.Loader) -> None:
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
            raise yaml_nodes.inside_itself(self.tree.file, mark)
        self.tree.values[path] = yaml_nodes.place(mark)
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
        if self.count > yaml_nodes.MAX_VALUES:
            raise yaml_nodes.too_many(self.tree.file, mark)
        if depth > yaml_nodes.MAX_DEPTH:
            raise yaml_nodes.too_deep(self.tree.file, mark)

    def _entries(self, node: MappingNode, depth: int) -> dict[str, _Entry]:
        """The keys of a mapping, with what ``<<`` brings in; its own ones override that, and of several sources the first counts."""
        merged: dict[str, _Entry] = {}
        own: dict[str, _Entry] = {}
        for key_node, value_node in node.value:
            place = yaml_nodes.place(key_node.start_mark)
            if _is_merge(key_node):
                for source in value_node.value if isinstance(value_node, SequenceNode) else [value_node]:
                    self._spend(key_node.start_mark, depth)
                    if id(source) in self.open:
                        raise yaml_nodes.inside_itself(self.tree.file, key_node.start_mark)
                    if isinstance(source, MappingNode):
                        merged = self._entries(source, depth + 1) | merged
                    else:
                        self._note(place, "<< merges mappings only")
            elif not isinstance(key_node, ScalarNode) or not is_clean(key_node.value):
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
        if not is_clean(text):
            self.tree.problem(path, "this value contains a character that text cannot hold")
            self.tree.broken.add(path)
        plain = isinstance(node, ScalarNode) and node.style is None and id(node) not in self.as_text
        if plain:
            return typed(text)
        return FilledText(text) if text != written else text

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


def _is_merge(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.value == "<<" and node.style is None
