"""What the documents claim is there: fault tests by name, files by path."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from llmlaunch.cli.app import VERBS
from llmlaunch.manifest.load import loads

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def fault_tests() -> set[str]:
    files = ROOT.glob("tests/*/fastchat_faults/test_*.py")
    return {
        name for file in files for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.M)
    }


def test_every_fault_has_its_test_and_every_test_its_fault() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "explanation" / "fastchat.md").read_text()))
    assert named == fault_tests()


@pytest.mark.parametrize("document", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_linked_file_exists(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)\)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_room_is_described() -> None:
    """A package without a row is one that a newcomer does not find."""
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    rooms = {
        path.parent.relative_to(ROOT / "llmlaunch").as_posix()
        for path in ROOT.glob("llmlaunch/**/__init__.py")
    }
    assert {room for room in rooms - {"."} if f"`{room}/`" not in text} == set()


@pytest.mark.parametrize(
    "room",
    re.findall(r"^\| `([a-z_/]+)/`", (ROOT / "docs" / "explanation" / "architecture.md").read_text(), re.M),
)
def test_every_room_described_exists(room: str) -> None:
    assert (ROOT / "llmlaunch" / room / "__init__.py").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_path_named_exists(page: Path) -> None:
    """Modules, tests, examples and folders of the repository, wherever a page names one."""
    if page.name == "CHANGELOG.md":
        return  # which tells what was
    text = page.read_text()
    named = set(re.findall(r"(?<![\w./-])((?:llmlaunch|tests|docs|benchmarks|examples)/[\w./-]*\w/?)", text))
    missing = {path for path in named if not (ROOT / path).exists() and "NAME" not in path}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_manifests_shown_are_valid(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S):
        if re.search(r"^models:", block, re.M) and "llama-swap's" not in block and "vlm\n" not in block:
            assert loads(block, file=str(page), env={"PATH": "/bin", "HF_TOKEN": "t"}).models


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_verb_shown_exists(page: Path) -> None:
    for verb in re.findall(r"^llmlaunch ([a-z]+)", page.read_text(), re.M):
        assert verb in VERBS, verb


def test_the_reference_of_the_command_line_is_current(tmp_path: Path) -> None:
    assert written_by("make_cli", tmp_path) == (ROOT / "docs/reference/cli.md").read_text(), "run: make docs"


def test_the_reference_of_the_metrics_is_current(tmp_path: Path) -> None:
    assert written_by("make_metrics", tmp_path) == (ROOT / "docs/reference/metrics.md").read_text(), (
        "run: make docs"
    )


def written_by(script: str, folder: Path) -> str:
    (folder / "docs/reference").mkdir(parents=True)
    maker: dict[str, Any] = runpy.run_path(str(ROOT / f"docs/{script}.py"))
    maker["write"](folder)
    return (folder / str(maker["REFERENCE"])).read_text()
