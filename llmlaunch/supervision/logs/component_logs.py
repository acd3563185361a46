"""What components printed: bounded files for each incarnation, readable only by their owner.

``log_writer`` writes them, from the process that keeps the component: it is there as long as the component is, and goes on when
the supervisor is stopped. Each incarnation has a log of its own, ``COMPONENT.000001.log``, which holds ``log_keep`` files of
``log_max`` bytes at most; the logs of all earlier incarnations together hold no more than that either.

``log_stream`` reads them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmlaunch import paths
from llmlaunch.common import files
from llmlaunch.supervision.logs.log_stream import LogStream
from llmlaunch.supervision.processes.log_writer import part_numbers

KEPT = 10
"""Incarnations whose logs are kept, for each component."""
_LAST_BYTES = 1 << 20
"""Where the cause of an end is looked for: eight workers that fail alike print their tracebacks in less."""
_ROOM_BYTES = 16 << 10
_NAME = re.compile(r"(?P<component>.+)\.(?P<incarnation>\d{6,})\.log(?:\.\d+)?")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where a shim writes what its program prints."""

    folder: int
    """A descriptor of the folder; -1: output is discarded."""
    name: str
    most: int
    """Bytes in a file."""
    keep: int
    """Files, including the one that is being written."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The shim's command-line arguments for it."""
        return (str(self.folder), self.name, str(self.most), str(self.keep))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors that the shim inherits."""
        return (self.folder,) if self.folder >= 0 else ()


@contextlib.contextmanager
def target(
    where: paths.DeploymentPaths, component: str, incarnation: int, most: int, keep: int
) -> Iterator[LogTarget]:
    """Where a new incarnation's output goes. Makes room for it first.

    If the folder cannot be written to, output is lost, but the component starts.
    """
    folder = -1
    try:
        paths.private_dir(where.logs)
        _prune(where, component, most * keep)
        folder = os.open(where.logs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        log.warning("cannot keep what %s prints in %s: %s", component, where.logs, error.strerror)
    try:
        yield LogTarget(folder, where.log(component, incarnation).name, most, keep)
    finally:
        if folder >= 0:
            os.close(folder)


def _prune(where: paths.DeploymentPaths, component: str, most: int) -> None:
    """Delete logs of earlier incarnations: beyond the newest ``KEPT``, and beyond ``most`` bytes in all."""
    size = 0
    for age, path in enumerate(reversed(log_files(where.name, component)), 1):
        for file in reversed(_files_of(path)):
            with contextlib.suppress(OSError):
                size += file.lstat().st_size
                if age >= KEPT or size > most:
                    file.unlink()


def log_files(name: str, component: str) -> list[Path]:
    """The logs of one component of deployment ``name``, oldest first; the last one is the current incarnation's."""
    where = paths.DeploymentPaths(name)
    return [where.log(component, incarnation) for incarnation in _incarnations(where, component)]


def last_incarnation(name: str, component: str) -> int:
    """The newest incarnation that left a log; 0 when there is none. Numbering goes on from it."""
    return max(_incarnations(paths.DeploymentPaths(name), component), default=0)


def components(name: str) -> list[str]:
    """The components of deployment ``name`` that left logs, sorted."""
    return sorted({match["component"] for match in _matches(paths.DeploymentPaths(name))})


def _incarnations(where: paths.DeploymentPaths, component: str) -> list[int]:
    found = {int(match["incarnation"]) for match in _matches(where) if match["component"] == component}
    return sorted(found)


def _matches(where: paths.DeploymentPaths) -> Iterator[re.Match[str]]:
    try:
        names = os.listdir(where.logs)  # noqa: PTH208  # a folder may hold thousands
    except OSError:
        return
    for name in names:
        if match := _NAME.fullmatch(name):
            yield match


def disk_is_full(folder: Path) -> bool:
    """Whether hardly anything more can be written there."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < _ROOM_BYTES


def last_rows(path: Path, most: int = _LAST_BYTES) -> list[str]:
    """The lines in the last ``most`` bytes of a log as they were printed, control characters and all; empty if it cannot be read.

    Of lines that overwrite each other, as progress bars do, only the last counts.
    """
    try:
        with contextlib.closing(LogStream(path)) as stream:
            whole = stream.skip_to_last(most)
            text = b"".join(iter(stream.read, b""))[-most:].decode(errors="replace")
    except (OSError, files.UnusableFileError):
        return []
    rows = [row.rstrip("\r").rpartition("\r")[2] for row in text.split("\n")]
    if not whole:
        rows = rows[1:]
    while rows and not rows[-1].strip():
        rows.pop()
    return rows


def _files_of(path: Path) -> list[Path]:
    """The files of the log ``path``, oldest first."""
    try:
        numbers = part_numbers(os.listdir(path.parent), path.name)  # noqa: PTH208
    except FileNotFoundError:
        numbers = []
    return [*(path.with_name(f"{path.name}.{number}") for number in numbers), path]
