"""What is printed can be read in every encoding."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from llmlaunch import cli
from llmlaunch.cli.display import stdout


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_valid_in_every_encoding_and_keeps_every_byte_of_a_path(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding))
    cli._take_any_text()
    value = {"é": "中 🙂", "path": os.fsdecode(b"m\xd0\xcd")}
    print(stdout.as_json(value), flush=True)
    assert json.loads(printed.getvalue().decode(encoding)) == value


def test_what_an_encoding_lacks_is_shown_as_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "ascii"))
    cli._take_any_text()
    print("a → b", os.fsdecode(b"m\xd0"), flush=True)
    assert printed.getvalue() == b"a \\u2192 b m\\udcd0\n"
