"""The modules of ``llmlaunch`` and what they import, read from their source: nothing of them runs.

A room is a folder (``gateway/http1``) or a module beside them (``errors``). A folder's own modules are one room, those of
the folders inside it are others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "llmlaunch"
ROOT = "llmlaunch"


@dataclass(frozen=True, slots=True)
class Import:
    name: str
    """As it is written, absolute: ``llmlaunch.errors.ManifestError``, ``torch``."""
    line: int
    typing_only: bool = False
    """Whether it stands under ``if TYPE_CHECKING:``, so that it never runs."""


@dataclass(frozen=True)
class Module:
    path: Path

    @property
    def place(self) -> str:
        """``gateway/http1/framing.py``"""
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def name(self) -> str:
        """``llmlaunch.gateway.http1.framing``"""
        parts = self.path.relative_to(PACKAGE.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        folder = self.path.parent.relative_to(PACKAGE).as_posix()
        if folder != ".":
            return folder
        return ROOT if self.path.stem == "__init__" else self.path.stem

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(), str(self.path))

    @cached_property
    def lines(self) -> int:
        return len(self.path.read_text().splitlines())

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.tree) or ""

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """All of them: those in functions and those for the type checker, too."""
        return tuple(_imports(self))


def _imports(module: Module) -> Iterator[Import]:
    for_types = {
        inner
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.place}:{node.lineno}: a relative import hides its room"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (Import(name, node.lineno, node in for_types) for name in names)


def is_or_inside(name: str, module: str) -> bool:
    """Whether the dotted ``name`` is ``module`` or something in it."""
    return name == module or name.startswith(module + ".")


def read() -> dict[str, Module]:
    """Every module of the package by its dotted name."""
    found = (Module(path) for path in sorted(PACKAGE.rglob("*.py")))
    return {module.name: module for module in found}


def imported(item: Import, modules: Mapping[str, Module]) -> Module | None:
    """The module of ours that ``item`` names, or in which it names something; None for other people's."""
    name = item.name
    while name:
        if name in modules:
            return modules[name]
        name = name.rpartition(".")[0]
    return None


def graph(modules: Mapping[str, Module], typing: bool = True) -> dict[str, dict[str, int]]:
    """By module the modules that it imports, with the line of the first import; without ``typing`` what runs alone."""
    edges: dict[str, dict[str, int]] = {name: {} for name in modules}
    for module in modules.values():
        for item in module.imports:
            if item.typing_only and not typing:
                continue
            other = imported(item, modules)
            if other is not None and other is not module:
                edges[module.name].setdefault(other.name, item.line)
    return edges


def circles(edges: Mapping[str, Mapping[str, object]]) -> list[tuple[str, ...]]:
    """The sets of modules that reach each other by their imports, each sorted (Tarjan's components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[tuple[str, ...]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(tuple(sorted(stack[at:])))
            del stack[at:]

    for name in edges:
        if name not in index:
            visit(name)
    return sorted(found)


def about(room: str, modules: Mapping[str, Module]) -> str:
    """The first sentence or line of what a room says of itself; "" when it says nothing."""
    name = ROOT if room == ROOT else f"{ROOT}.{room.replace('/', '.')}"
    return modules[name].docstring.split("\n\n")[0].replace("\n", " ")
