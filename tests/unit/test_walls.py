"""The walls of docs/explanation/architecture.md, read from the source, so nothing has to run.

The table of rooms is in tests/walls/rooms.py; ``python -m tests.walls`` prints it.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.walls import source
from tests.walls.rooms import EFFECTS, HARMLESS, IMPURE, MAY_IMPORT, ONE_HOME, PURE_ROOMS, may_import
from tests.walls.source import ROOT, Module, is_or_inside

MODULES = source.read()
EDGES = source.graph(MODULES)
CALLS_THAT_PRINT_OR_EXIT = {"print", "exit", "quit"}

every_module = pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.place)


# -- rooms -----------------------------------------------------------------------------------------------------------


def test_every_room_is_in_the_table_and_says_what_it_is() -> None:
    rooms = {module.room for module in MODULES.values()}
    assert set(MAY_IMPORT) == rooms
    assert [room for room in sorted(rooms) if not source.about(room, MODULES)] == []


def test_rooms_import_what_the_table_says_and_nothing_else() -> None:
    wrong = [
        f"{MODULES[name].place}:{line} imports {other}: {MODULES[name].room} may not import {MODULES[other].room}"
        for name, others in EDGES.items()
        for other, line in others.items()
        if MODULES[name].room != MODULES[other].room
        and MODULES[other].room not in may_import(MODULES[name].room)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_table_allows_nothing_that_nobody_needs() -> None:
    needed = {(MODULES[name].room, MODULES[other].room) for name, others in EDGES.items() for other in others}
    stale = [
        f"{room} imports {other} no more: take it out of tests/walls/rooms.py"
        for room in MAY_IMPORT
        for other in may_import(room)
        if (room, other) not in needed
    ]
    assert not stale, "\n".join(stale)


def test_no_modules_import_each_other() -> None:
    """Not in functions and not for the type checker either: two modules that need each other are one, or three."""
    assert not [" ↔ ".join(circle) for circle in source.circles(EDGES)]


# -- pure modules ----------------------------------------------------------------------------------------------------

RUN = source.graph(MODULES, typing=False)
PURE = [
    module
    for module in MODULES.values()
    if module.room in PURE_ROOMS or re.search(r"\bPure\b", module.docstring)
]


def effects(module: Module) -> list[str]:
    """Where ``module`` itself imports or calls what has effects."""
    found = [
        f"{module.place}:{item.line} imports {item.name}"
        for item in module.imports
        if not item.typing_only
        and item.name not in HARMLESS
        and any(is_or_inside(item.name, library) for library in IMPURE)
    ]
    return found + [
        f"{module.place}:{node.lineno} calls {node.func.id}()"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in EFFECTS
    ]


@pytest.mark.parametrize("module", PURE, ids=lambda module: module.place)
def test_pure_modules_have_no_effects_and_use_no_module_that_has(module: Module) -> None:
    """Whatever says "Pure" takes time, chance and what was read as arguments, and so does all that it imports."""
    way = {module.name: ""}
    todo = [module.name]
    while todo:
        name = todo.pop()
        assert not effects(MODULES[name]), "; ".join(effects(MODULES[name])) + way[name]
        for other in RUN[name].keys() - way.keys():
            way[other] = f", imported by {name}{way[name]}"
            todo.append(other)


def test_there_are_pure_modules_outside_of_pure_rooms() -> None:
    """Should the word in their docstrings become another one, nothing would be checked."""
    assert len([module for module in PURE if module.room not in PURE_ROOMS]) > 30


# -- libraries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module",
    [module for module in MODULES.values() if module.room == "common"],
    ids=lambda module: module.place,
)
def test_common_needs_next_to_nothing_that_has_to_be_installed(module: Module) -> None:
    """Any room may import it, so it brings nothing heavy."""
    for item in module.imports:
        known = sys.stdlib_module_names | {ROOT, "_typeshed", "filelock"}
        assert item.name.split(".")[0] in known, f"{module.place}:{item.line} imports {item.name}"


@every_module
def test_heavy_and_terminal_libraries_have_one_home(module: Module) -> None:
    for item in module.imports:
        for library, home in ONE_HOME.items():
            if is_or_inside(item.name, library):
                assert module.place.startswith(home), (
                    f"{module.place}:{item.line} imports {item.name}; only {home} may"
                )


# -- habits ----------------------------------------------------------------------------------------------------------

IN_CLI = [module for module in MODULES.values() if module.place.startswith("cli/")]
LIGHT = (
    "llmlaunch.__version__",
    "llmlaunch.cli",
    "llmlaunch.common.deployment_name",
    "llmlaunch.common.dispatch_methods",
    "llmlaunch.common.terminal_text",
    "llmlaunch.errors",
    "llmlaunch.paths",
)
HEAVY = {"fastapi", "httpx", "huggingface_hub", "psutil", "pydantic", "rich", "starlette", "uvicorn", "yaml"}


@every_module
def test_only_cli_prints_and_exits(module: Module) -> None:
    if module.place.startswith("cli/"):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in CALLS_THAT_PRINT_OR_EXIT, (
                f"{module.place}:{node.lineno} {node.func.id}()"
            )


@every_module
def test_no_shell(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            raise AssertionError(f"{module.place}:{node.value.lineno} passes shell=")
        if isinstance(node, ast.Attribute) and node.attr in ("system", "popen"):
            assert not (isinstance(node.value, ast.Name) and node.value.id == "os"), (
                f"{module.place}:{node.lineno}"
            )


@pytest.mark.parametrize("module", IN_CLI, ids=lambda module: module.place)
def test_verbs_import_little_at_their_top(module: Module) -> None:
    """``llmlaunch status`` answers in a blink because no verb imports a heavy room before it runs."""
    top = {node.lineno for node in module.tree.body}
    for item in module.imports:
        if item.line not in top:
            continue
        ours = is_or_inside(item.name, ROOT) and not any(is_or_inside(item.name, light) for light in LIGHT)
        assert item.name.split(".")[0] not in HEAVY, (
            f"{module.place}:{item.line} imports {item.name} at the top"
        )
        assert not ours, f"{module.place}:{item.line} imports {item.name} at the top"


# -- tests -----------------------------------------------------------------------------------------------------------

UNIT = Path(__file__).parent
OF_SEVERAL_MODULES = {
    "anthropic/test_hostile.py": "recorded bodies, chunks and answers with odd values in them, through all translations",
    "gateway/fastchat/test_hostile.py": "any JSON through both translations, the request's and the response's",
    "models/reading/test_damaged_headers.py": "any bytes as a header of either format",
    "test_corrupted.py": "whatever lies where any file of ours should be, every verb ends",
    "test_docs.py": "what the documents name is there",
    "test_ports.py": "the ports that tests are given (tests/support)",
    "test_project.py": "what pyproject.toml says",
    "test_promises.py": "what the documents promise is tested",
    "test_site.py": "the site that is built from the documents",
    "test_walls.py": "the rooms themselves",
    "worker/test_documents.py": "docs/reference/worker.md says what the code does",
    "worker/tokenization/test_long_texts.py": "long texts from the endpoints to the tokenizer",
}


@pytest.mark.parametrize(
    "path", sorted(UNIT.rglob("test_*.py")), ids=lambda path: path.relative_to(UNIT).as_posix()
)
def test_unit_tests_mirror_the_rooms(path: Path) -> None:
    """tests/unit/ROOM/test_X.py tests llmlaunch/ROOM/X.py.

    Several files may test one module: test_X_rest.py names it first. test_ROOM.py, with the last part of the room's
    name, tests a room as a whole. What tests several modules, or none, is listed above with its reason.
    """
    place = path.relative_to(UNIT)
    folder = source.PACKAGE / place.parent
    assert folder.is_dir(), f"{place.parent} is no room of llmlaunch"
    if place.as_posix() in OF_SEVERAL_MODULES:
        return
    tested = path.stem.removeprefix("test_")
    modules = {module.stem for module in folder.glob("*.py")} | {folder.name}
    assert any(tested == name or tested.startswith(f"{name}_") for name in modules), (
        f"{place}: which module of {place.parent} does it test?"
    )


def test_every_exception_of_the_mirror_is_there() -> None:
    assert [place for place in OF_SEVERAL_MODULES if not (UNIT / place).exists()] == []


def test_circles_are_found() -> None:
    edges = {"a": {"b": 1}, "b": {"c": 1, "d": 1}, "c": {"a": 1}, "d": {"e": 1}, "e": {"d": 1}, "f": {"a": 1}}
    assert source.circles(edges) == [("a", "b", "c"), ("d", "e")]
