"""What stdout can show: colours, live tables, letters beyond ASCII."""

from __future__ import annotations

import json
import os
import sys


def on_terminal() -> bool:
    """Whether stdout is a terminal that shows colours and live tables."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def as_json(value: object, indent: int | None = 2) -> str:
    """``value`` for stdout: letters as they are where its encoding has them all, else as escapes."""
    plain = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("_", "-") in ("utf-8", "utf8")
    return json.dumps(value, indent=indent, ensure_ascii=not plain)
