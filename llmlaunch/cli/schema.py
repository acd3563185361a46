"""``llmlaunch schema``: the manifest's JSON Schema, for editors."""

from __future__ import annotations

import json


def schema() -> None:
    """Print the manifest's JSON Schema, for editors."""
    from llmlaunch.manifest.schema import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
