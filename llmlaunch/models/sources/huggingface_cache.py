"""The Hugging Face cache on this machine, read by its documented layout.

``models--ORG--NAME/{refs/REVISION, snapshots/COMMIT/…}`` (huggingface_hub, "Understand caching"). Looking does not import
huggingface_hub, which takes a fifth of a second, and asks nobody.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from llmlaunch.errors import ModelError
from llmlaunch.models.reading.files import Folder, choose

_COMMIT = re.compile(r"^[0-9a-f]{40}$")


def folder(env: Mapping[str, str]) -> Path:
    """HF_HUB_CACHE, else hub/ in HF_HOME, else in the user's cache. There may be no such folder, nor a home for it."""
    if env.get("HF_HUB_CACHE"):
        return _expanded(env["HF_HUB_CACHE"])
    if env.get("HF_HOME"):
        return _expanded(env["HF_HOME"]) / "hub"
    base = Path(env["XDG_CACHE_HOME"]) if env.get("XDG_CACHE_HOME") else _expanded("~/.cache")
    return base / "huggingface" / "hub"


def _expanded(path: str) -> Path:
    # As huggingface_hub does. A user without a home keeps the ~, and is told of it where the folder is named.
    return Path(os.path.expanduser(path))  # noqa: PTH111


def snapshot(
    model: str, revision: str | None, cache: Path, file: str = "", tag: str = ""
) -> tuple[Path | None, str]:
    """The folder of a snapshot that can be loaded as it is, or None; and why not, in words."""
    root = cache / f"models--{model.replace('/', '--')}"
    if not root.is_dir():
        return None, f"hub cache {cache}: does not have it"
    found = partial(model, revision, cache)
    if found is None:
        return None, f"hub cache {cache}: does not have revision {revision or 'main'} of it"
    try:
        choice = choose(Folder(found), file, tag)
    except ModelError as error:
        return (
            None,
            f"hub cache {cache}: has only part of it ({error.message.removeprefix(str(found)).lstrip(': ')})",
        )
    if choice.missing:
        missing = f"{len(choice.missing)} of {len(choice.weights)} weight files are missing"
        return None, f"hub cache {cache}: has only part of it ({missing})"
    return found, ""


def partial(model: str, revision: str | None, cache: Path) -> Path | None:
    """The folder of a snapshot, whole or not."""
    root = cache / f"models--{model.replace('/', '--')}"
    commit = _commit(root, revision or "main")
    found = root / "snapshots" / commit
    return found if commit and found.is_dir() else None


def bytes_on_disk(model: str, cache: Path) -> int:
    """What there is of a model's files, those that are being downloaded included.

    Allocated bytes: a file that is written out of order is as large as its end from the first moment.
    """
    total = 0
    try:
        with os.scandir(cache / f"models--{model.replace('/', '--')}" / "blobs") as entries:
            for entry in entries:
                total += min(entry.stat().st_blocks * 512, entry.stat().st_size)
    except (OSError, ValueError):
        pass  # not there yet, or just renamed
    return total


def models(cache: Path) -> list[str]:
    """Ids of the models that the cache knows."""
    return sorted(
        path.name.removeprefix("models--").replace("--", "/", 1) for path in cache.glob("models--*")
    )


def _commit(root: Path, revision: str) -> str:
    if _COMMIT.match(revision):
        return revision
    reference = root / "refs" / revision
    try:
        return reference.read_text().strip() if reference.resolve().is_relative_to(root.resolve()) else ""
    except OSError:
        return ""
