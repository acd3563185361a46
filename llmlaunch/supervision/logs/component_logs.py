"""What components printed: bounded files for each incarnation, readable by their owner alone.

``log_writer`` writes them, from the process that keeps the component: it is there as long as the component is, and goes on when
the supervisor is stopped. Each incarnation has a log of its own, ``COMPONENT.000001.log``, which holds ``log_keep`` files of
``log_max`` bytes at most; the logs of all earlier incarnations together hold no more than that either.

Reading never takes more memory than a block and a line, whatever the size of a log.
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
from llmlaunch.common.terminal_text import visible
from llmlaunch.supervision.processes.log_writer import part_numbers

KEPT = 10
"""Incarnations whose logs are kept, for each component."""
BLOCK_BYTES = 64 << 10
_TAIL_BYTES = 64 << 10
_ROOM_BYTES = 16 << 10
_NAME = re.compile(r"(?P<component>.+)\.(?P<incarnation>\d{6,})\.log(?:\.\d+)?")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where a shim writes what its program prints."""

    folder: int
    """A descriptor of the folder; -1: nothing can be kept."""
    name: str
    most: int
    """Bytes in a file."""
    keep: int
    """Files, the one that is being written among them."""

    @property
    def words(self) -> tuple[str, ...]:
        """For the shim's command line."""
        return (str(self.folder), self.name, str(self.most), str(self.keep))

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self.folder,) if self.folder >= 0 else ()


@contextlib.contextmanager
def target(
    where: paths.DeploymentPaths, component: str, incarnation: int, most: int, keep: int
) -> Iterator[LogTarget]:
    """Where a new incarnation's output goes. Makes room for it first.

    A folder that cannot be written to costs the output, not the start.
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
    """Delete what is too much of earlier incarnations: beyond ``KEPT`` of them, and beyond ``most`` bytes in all."""
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
    """Whether nothing more can be written there."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < _ROOM_BYTES


def tail(path: Path, lines: int) -> list[str]:
    """The last ``lines`` lines of a log as a terminal may show them; empty when there is none that can be read.

    They are looked for in its last 64 KiB. Of lines that overwrite each other, as progress bars do, only the last counts.
    """
    try:
        with contextlib.closing(Stream(path)) as stream:
            whole = stream.skip_to_last(_TAIL_BYTES)
            text = b"".join(iter(stream.read, b""))[-_TAIL_BYTES:].decode(errors="replace")
    except (OSError, files.Unfit):
        return []
    rows = [row.rstrip("\r").rpartition("\r")[2] for row in text.split("\n")]
    if not whole:
        rows = rows[1:]
    while rows and not rows[-1].strip():
        rows.pop()
    return [visible(row) for row in rows[-lines:]] if lines > 0 else []


class Stream:
    """What one log holds, through all its files from the oldest on, and then what is added to it.

    Methods raise Unfit for something that is no log, and OSError; a log that is not there yet is an empty one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1
        self._identity = (0, 0)
        self._number = 0
        """Of the file that is, or was last, open. As the writer counts: the file that is being written has the next number."""

    def read(self, most: int = BLOCK_BYTES) -> bytes:
        """What comes next, ``most`` bytes at most; empty when there is nothing more now."""
        while self._file >= 0 or self._next():
            if data := os.read(self._file, most):
                return data
            if self._is_written():
                return b""
            # It has become an earlier file. Something may have been added between the two lines above, nothing is from here on.
            if data := os.read(self._file, most):
                return data
            self.close()
        return b""

    def skip_to_last(self, most: int) -> bool:
        """Go on with the last ``most`` bytes that there are now, unless there are fewer. True: nothing was left out."""
        found = self._found(0)
        number = found[0][0] if found else 0
        left = most
        for index in range(len(found) - 1, -1, -1):
            size = os.fstat(found[index][1]).st_size
            if size > left:
                self._take(found, index, size - left)
                return False
            left -= size
        self._take(found, 0, 0)
        return number <= 1

    def skip_to_last_lines(self, count: int) -> None:
        """Go on with the last ``count`` lines that there are now, unless there are fewer. One that has no end yet counts."""
        found = self._found(0)
        left = count
        last = True
        for index in range(len(found) - 1, -1, -1):
            descriptor = found[index][1]
            at = os.fstat(descriptor).st_size
            if last and at:
                # The end of the last line ends nothing that counts.
                left += os.pread(descriptor, 1, at - 1) == b"\n"
                last = False
            if not left:
                self._take(found, index, at)
                return
            while at > 0:
                start = max(at - BLOCK_BYTES, 0)
                block = os.pread(descriptor, at - start, start)
                ends = block.count(b"\n")
                if ends >= left:
                    end = len(block)
                    for _ in range(left):
                        end = block.rfind(b"\n", 0, end)
                    self._take(found, index, start + end + 1)
                    return
                left -= ends
                at = start
        self._take(found, 0, 0)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _next(self) -> bool:
        found = self._found(self._number)
        self._take(found, 0, 0)
        return bool(found)

    def _take(self, found: list[tuple[int, int]], index: int, offset: int) -> None:
        """Go on at ``offset`` of the file ``found[index]``; close the others."""
        self.close()
        for other, (number, descriptor) in enumerate(found):
            if other == index:
                os.lseek(descriptor, offset, os.SEEK_SET)
                self._file, self._number, self._identity = descriptor, number, _identity(os.fstat(descriptor))
            else:
                os.close(descriptor)

    def _found(self, after: int) -> list[tuple[int, int]]:
        """The files with a number above ``after``, oldest first: numbers and descriptors."""
        while True:
            numbers = self._numbers()
            found: list[tuple[int, int]] = []
            try:
                for number in numbers:
                    if number > after:
                        with contextlib.suppress(FileNotFoundError, files.Unfit):
                            part = self.path.with_name(f"{self.path.name}.{number}")
                            found.append((number, files.open_ours(part)))
                with contextlib.suppress(FileNotFoundError):
                    newest = files.open_ours(self.path)
                    # Whoever deletes earlier files by hand makes the numbers begin anew.
                    known = _identity(os.fstat(newest)) == self._identity and after > 0
                    number = max([*numbers[-1:], after]) + 1
                    found += [] if known else [(number, newest)]
                    if known:
                        os.close(newest)
                if self._numbers()[-1:] == numbers[-1:]:
                    return found
            except BaseException:
                _close_all(found)
                raise
            # A file became an earlier one meanwhile: it may be missing.
            _close_all(found)

    def _numbers(self) -> list[int]:
        try:
            return part_numbers(os.listdir(self.path.parent), self.path.name)  # noqa: PTH208
        except FileNotFoundError:
            return []

    def _is_written(self) -> bool:
        """Whether the file that is open is the one that is being written."""
        here = os.fstat(self._file)
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return False
        if _identity(here) != _identity(there):
            return False
        if here.st_size < os.lseek(self._file, 0, os.SEEK_CUR):
            os.lseek(self._file, 0, os.SEEK_SET)  # somebody emptied it
        return True


def _identity(found: os.stat_result) -> tuple[int, int]:
    return (found.st_dev, found.st_ino)


def _close_all(found: list[tuple[int, int]]) -> None:
    for _, descriptor in found:
        os.close(descriptor)


def _files_of(path: Path) -> list[Path]:
    """The files of the log ``path``, oldest first."""
    try:
        numbers = part_numbers(os.listdir(path.parent), path.name)  # noqa: PTH208
    except FileNotFoundError:
        numbers = []
    return [*(path.with_name(f"{path.name}.{number}") for number in numbers), path]
