"""Requests that client libraries sent (``programs.py --record``), and what they are answered with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).with_name("recorded")


@dataclass(frozen=True)
class Turn:
    """One request. ``says``: what the model answers; None: what it likes, in the form that is asked for."""

    client: str
    path: str
    body: dict[str, Any]
    says: str | None


def turns() -> list[Turn]:
    """Every recorded request, in order."""
    found = []
    for file in sorted(_FOLDER.glob("*.json")):
        recorded = json.loads(file.read_text())
        for number, turn in enumerate(recorded["turns"], 1):
            found.append(Turn(f"{file.stem}-{number}", turn["path"], turn["body"], turn["says"]))
    return found
