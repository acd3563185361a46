"""Why a folder of this machine holds no whole model, where looking around it tells: dangling links, a model further down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

_DEPTH = 3
_STORES = {"blobs", "refs"}
"""Folders of the hub's cache that links lead to."""
_MOST_FOLDERS = 200
_SHOWN = 3


def dangling_links(folder: Path) -> str:
    """A sentence about links in ``folder`` whose targets are not there; empty if there are none.

    The hub's cache consists of links to ``blobs/``, and a copy of a snapshot alone is nothing but them.
    """
    try:
        broken = [entry for entry in sorted(folder.iterdir()) if entry.is_symlink() and not entry.exists()]
    except OSError:
        return ""
    if not broken:
        return ""
    first = broken[0]
    target = first.parent / first.readlink()
    who = first.name if len(broken) == 1 else f"{first.name} and {len(broken) - 1} more"
    words = "is a link to a file that does" if len(broken) == 1 else "are links to files that do"
    return f"{who} {words} not exist ({Path(os.path.normpath(target))})"


def further_down(model: str, folder: Path) -> str:
    """A hint with the folders below ``folder`` that look like models, written as ``model`` is; empty if none does."""
    found = [path.relative_to(folder) for path in islice(_models(folder, _DEPTH), _SHOWN)]
    names = [f"{model.rstrip('/')}/{path.as_posix()}" for path in found]
    return f"did you mean {' or '.join(names)}?" if names else ""


def _models(folder: Path, depth: int) -> Iterator[Path]:
    for inner in islice(_folders(folder), _MOST_FOLDERS):
        if _looks_like_a_model(inner):
            yield inner
        elif depth > 1:
            yield from _models(inner, depth - 1)


def _folders(folder: Path) -> Iterator[Path]:
    try:
        inner = sorted(entry for entry in folder.iterdir() if entry.is_dir())
        yield from (entry for entry in inner if not entry.name.startswith(".") and entry.name not in _STORES)
    except OSError:
        return


def _looks_like_a_model(folder: Path) -> bool:
    try:
        names = {entry.name for entry in folder.iterdir()}
    except OSError:
        return False
    return "config.json" in names or "params.json" in names or any(name.endswith(".gguf") for name in names)
