"""Make docs/reference/cli.md from the command line's own help.

Run: ``make docs``. A test asserts that the file is what this prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from typer.testing import CliRunner

from llmlaunch.cli.app import VERBS, build

ROOT = Path(__file__).parents[1]
REFERENCE = "docs/reference/cli.md"

HEAD = """\
# The command line

<!-- Made by docs/make_cli.py from the help of the command line: change that, then run `make docs`. -->

What `llmlaunch VERB --help` prints. [Operations](../guides/operations.md) says how the verbs work together.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | it failed: a model does not fit, a port is taken, a model is missing, a component failed |
| 2 | the command line or the manifest is wrong |
| 3 | nothing is running (`status`) |
| 4 | the time given with `--timeout` is over |
| 130 | Ctrl-C |
"""


def page() -> str:
    """The whole page."""
    return "".join([HEAD, *_verbs()])


def _verbs() -> Iterator[str]:
    app = build()
    app.rich_markup_mode = None  # no panels, whatever this runs on
    for group, verbs in groupby(VERBS, VERBS.__getitem__):
        yield f"\n## {group}\n"
        for verb in verbs:
            told = CliRunner().invoke(app, [verb, "--help"], prog_name="llmlaunch", env={"COLUMNS": "100"})
            yield f"\n### `llmlaunch {verb}`\n\n```text\n{told.output.strip()}\n```\n"


def write(root: Path) -> None:
    (root / REFERENCE).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write(ROOT)
    sys.stdout.write(f"{REFERENCE}\n")
