"""The short way of ``status`` means the same as typer's, or steps aside."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from llmlaunch.cli import app, fast_status
from llmlaunch.cli import status as verb


def typers(words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any] | None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(verb, "show", lambda **options: seen.append(options))
    result = CliRunner().invoke(app.build(["status", "down"]), words)
    return seen[0] if seen and result.exit_code == 0 else None


WORDS = st.lists(
    st.sampled_from(
        [
            "-f",
            "--file",
            "--name",
            "--json",
            "--watch",
            "--file=a",
            "--name=b",
            "--json=1",
            "a.yaml",
            "-fx",
            "-h",
            "--",
            "-",
        ]
    ),
    max_size=5,
)


@given(WORDS)
def test_what_is_understood_is_what_typer_understands(words: list[str]) -> None:
    options = fast_status.status_options(["status", *words])
    if options is not None:
        with pytest.MonkeyPatch.context() as patch:
            assert typers(["status", *words], patch) == options


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["up"],
        ["status", "--help"],
        ["status", "-f"],
        ["status", "x"],
        ["--version"],
        ["status", "--name", "--json"],
    ],
)
def test_everything_else_steps_aside(words: list[str]) -> None:
    assert fast_status.status_options(words) is None


def test_completion_steps_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_LLMLAUNCH_COMPLETE", "complete_bash")
    assert fast_status.status_options(["status"]) is None


def test_the_plain_spellings_are_understood() -> None:
    assert fast_status.status_options(["status"]) is not None
    assert fast_status.status_options(["status", "-f", "a.yaml", "--json", "--watch"]) == {
        "file": "a.yaml", "name": None, "as_json": True, "watch": True,
    }  # fmt: skip
