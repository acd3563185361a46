"""``llmlaunch validate``: check a manifest, start nothing."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import typer

from llmlaunch.errors import ManifestError


def validate(
    file: Path = typer.Argument(Path("deploy.yaml"), metavar="FILE", help="The manifest."),
    as_json: bool = typer.Option(False, "--json", help='Print {"ok", "problems": [...], "notes": [...]}.'),
) -> None:
    """Check a manifest: every mistake at once, with line and column. Starts nothing.

    What an engine cannot do is a mistake, too; what does not fit on this machine is the plan's to say.
    """
    from llmlaunch.manifest.load import load
    from llmlaunch.manifest.places import with_env_files
    from llmlaunch.planning.check import refuse_invalid
    from llmlaunch.planning.notes import unknown_flags

    try:
        manifest = with_env_files(load(file, os.environ), required=False)
        refuse_invalid(manifest)
    except ManifestError as error:
        if not as_json:
            raise
        print(
            json.dumps(
                {"ok": False, "problems": [asdict(problem) for problem in error.problems], "notes": []},
                indent=2,
            )
        )
        raise typer.Exit(error.exit_code) from None
    if as_json:
        print(json.dumps({"ok": True, "problems": [], "notes": unknown_flags(manifest)}, indent=2))
        return
    for note in unknown_flags(manifest):
        typer.echo(f"note: {note}", err=True)
    replicas = sum(model.replicas for model in manifest.models)
    print(f"{file}: ok: {_count(len(manifest.models), 'model')}, {_count(replicas, 'replica')}")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
