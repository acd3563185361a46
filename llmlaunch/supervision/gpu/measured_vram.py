"""How much GPU memory replicas were measured to use, stored for the next plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmlaunch import paths
from llmlaunch.common import file_lock, files


def measurements_file() -> Path:
    """The file that all deployments of this user share."""
    return paths.state_root() / "learned.json"


def load_measurements() -> dict[str, int]:
    """Measured bytes per replica by ``planning.estimate.learning_key``; empty if nothing has been measured yet."""
    return files.load(measurements_file(), _learned) or {}


def _learned(data: dict[str, Any]) -> dict[str, int]:
    return {k: v for k, v in data.items() if isinstance(v, int) and not isinstance(v, bool) and v > 0}


def record_measurement(key: str, used_bytes: int) -> None:
    """Store what a replica uses, in bytes. Locks the file against other supervisors."""
    paths.private_dir(paths.state_root())
    with file_lock.held(measurements_file().with_suffix(".lock")):
        learned = load_measurements() | {key: used_bytes}
        files.write(measurements_file(), json.dumps(learned, indent=1, sort_keys=True))
