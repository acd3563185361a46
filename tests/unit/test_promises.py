"""Every line of docs/explanation/promises.md names the tests that show it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[tuple[str, str]]:
    """What happens, and what stands in the column of tests."""
    text = (ROOT / "docs/explanation/promises.md").read_text()
    cells = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [(row[0].strip(), row[-1]) for row in cells[2:]]


def names_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_there_are_promises() -> None:
    assert len(rows()) > 30


@pytest.mark.parametrize(("event", "cell"), rows(), ids=[event for event, _ in rows()])
def test_a_promise_names_tests_that_exist(event: str, cell: str) -> None:
    named = NAMED.findall(cell)
    assert named, f"no test is named: {cell}"
    for path, name in named:
        assert (ROOT / path).is_file(), f"there is no {path}"
        assert name in names_in(ROOT / path), f"{path} has no {name}"
