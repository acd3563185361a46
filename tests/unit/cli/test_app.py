from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from llmlaunch.cli import app
from llmlaunch.errors import DeadlineError, LlmlaunchError, ManifestError, NotRunningError, Problem


def test_every_verb_has_its_help() -> None:
    listed = CliRunner().invoke(app.build(), ["--help"])
    assert listed.exit_code == 0
    for verb in app.VERBS:
        assert f"\n  {verb} " in listed.output
        alone = CliRunner().invoke(app.build([verb, "schema"]), [verb, "-h"])
        assert alone.exit_code == 0, alone.output
        assert "Usage:" in alone.output


@pytest.mark.parametrize(
    ("verb", "usage"),
    [
        ("up", "[FILE]"),
        ("plan", "[FILE]"),
        ("validate", "[FILE]"),
        ("down", "[NAME]..."),
        ("logs", "[NAME]..."),
        ("restart", "NAME..."),
        ("test", "MODEL"),
        ("chat", "MODEL"),
    ],
)
def test_usage_lines_have_no_raw_placeholders(verb: str, usage: str) -> None:
    alone = CliRunner().invoke(app.build([verb, "schema"]), [verb, "-h"])
    assert alone.output.lstrip().splitlines()[0].endswith(f"{verb} [OPTIONS] {usage}")


def test_the_version() -> None:
    assert CliRunner().invoke(app.build(), ["--version"]).output.startswith("llmlaunch 0.")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LlmlaunchError("a\nb", hint="do this"), 1),
        (ManifestError([Problem("f.yaml", 3, 5, "wrong", "an int", "x")]), 2),
        (NotRunningError("not running"), 3),
        (DeadlineError("too long"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_a_message_and_an_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def verb() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        app.guarded(verb)()
    assert caught.value.exit_code == code
    printed = capsys.readouterr()
    assert printed.out == ""
    if isinstance(error, LlmlaunchError):
        assert printed.err.startswith(f"error: {error.message.splitlines()[0]}\n")
        assert (f"hint:  {error.hint}" in printed.err) is bool(error.hint)


def test_a_bug_is_not_hidden() -> None:
    def verb() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app.guarded(verb)()
