"""The header of a weights file on this machine, read by the same parser as one that a hub sends in pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llmlaunch.errors import ModelError

Prefix = Callable[[int], bytes]
"""Gives the first ``n`` bytes of a file."""
_Header = TypeVar("_Header")


def read_local(path: Path, parse: Callable[[Prefix, int, str], _Header]) -> _Header:
    """What ``parse`` makes of the file's prefixes, its size in bytes and its name. Raises ModelError when it cannot be read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:

            def prefix(length: int) -> bytes:
                file.seek(0)
                return file.read(length)

            return parse(prefix, size, str(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
