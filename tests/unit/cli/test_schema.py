"""``llmlaunch schema``, as the command line runs it."""

from __future__ import annotations

import json

from typer.testing import CliRunner, Result

from llmlaunch.cli.app import build
from llmlaunch.manifest.schema import json_schema


def run(*words: str) -> Result:
    return CliRunner().invoke(build(["schema"]), list(words))


def test_schema() -> None:
    found = run("schema")
    assert found.exit_code == 0
    assert json.loads(found.stdout) == json_schema()
