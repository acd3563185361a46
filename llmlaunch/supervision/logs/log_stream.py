"""Reads a log while it is being written, through all its files, or from near its end.

It never needs more memory than a block, whatever the size of the log.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from llmlaunch.common import files
from llmlaunch.supervision.processes.log_writer import part_numbers

BLOCK_BYTES = 64 << 10


class LogStream:
    """The content of one log, through all its files from the oldest on, and then what is appended to it.

    Methods raise UnusableFileError if the path is not a regular file of ours, and OSError; a log that does not exist yet is empty.
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
                # The newline at the very end does not begin another line.
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
        """Close the file that is open."""
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
                        with contextlib.suppress(FileNotFoundError, files.UnusableFileError):
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
