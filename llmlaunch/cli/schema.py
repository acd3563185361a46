"""``llmlaunch schema``: the manifest's JSON Schema, for editors."""

from __future__ import annotations


def schema() -> None:
    """Print the manifest's JSON Schema, for editors."""
    from llmlaunch.cli.display.stdout import as_json
    from llmlaunch.manifest.schema import json_schema

    print(as_json(json_schema()))
