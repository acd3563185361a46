"""What the documents claim is there: fault tests by name, files by path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def fault_tests() -> set[str]:
    files = ROOT.glob("tests/*/fastchat_faults/test_*.py")
    return {
        name for file in files for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.M)
    }


def test_every_fault_has_its_test_and_every_test_its_fault() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "explanation" / "fastchat.md").read_text()))
    assert named == fault_tests()


@pytest.mark.parametrize(
    "document",
    sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_every_linked_file_exists(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)\)", document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize(
    "room",
    re.findall(r"^\| `([a-z_/]+)/`", (ROOT / "docs" / "explanation" / "architecture.md").read_text(), re.M),
)
def test_every_room_described_exists(room: str) -> None:
    assert (ROOT / "llmlaunch" / room / "__init__.py").exists()
