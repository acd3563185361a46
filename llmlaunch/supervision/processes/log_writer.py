"""Writes a log of bounded size: a full file is rotated, and the oldest is deleted.

``NAME`` is always the file that is being written; when it is full it becomes ``NAME.1``, the next one ``NAME.2`` and so on, so
a number means the same file for as long as that exists, and the highest number is the newest. Together they are one stream:
a line may begin in one file and end in the next. See ``logs`` for the reading side.

Only the standard library, and little of it: the shim runs this without the rest of llmlaunch.
"""

import errno
import os
import select
import stat
import struct
import time

LOOK_EVERY_S = 1.0
"""How often a writer checks that its file is still there, and tries again to open one that could not be opened."""
READ_BYTES = 1 << 20
SMALL = 8
"""A read of less than one part in ``SMALL`` of the pipe is followed by a short pause, to save wake-ups for a chatty program."""
PAUSE_S = 0.005
LAST_WORDS_S = 1.0
"""How long output is still read after the shim has died."""
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class LogWriter:
    """Appends to ``name`` in the folder that the descriptor ``folder`` is open on: ``keep`` files of ``most`` bytes at most.

    No method raises because of the disk: what cannot be written is lost, and a line in the log says so as soon as one can be written.
    """

    def __init__(self, folder: int, name: str, most: int, keep: int) -> None:
        self.folder = folder
        self.name = name
        self.most = max(most, 1)
        self.keep = max(keep, 1)
        self.lost = 0
        """Bytes lost since the last successful write."""
        self.reason = ""
        self._file = -1
        self._size = 0
        self._identity = (0, 0)
        self._look_at = 0.0
        self._whole = True
        """Whether the last thing written was the end of a line."""

    def write(self, data: bytes) -> None:
        """Append ``data``, rotating the files as needed."""
        self._look()
        if self.lost and self._file >= 0:
            self._note_lost_bytes()
        while data:
            piece = self._fitting(data)
            if not piece:
                self._rotate()
            elif not self._append(piece):
                self.lost += len(data)
                return
            data = data[len(piece) :]

    def count_lost(self, count: int, reason: str) -> None:
        """Count ``count`` bytes that were dropped before they came here."""
        self.lost += count
        self.reason = reason

    def opened(self, descriptor: int) -> None:
        """Called with the descriptor of each file that was opened; for subclasses."""

    def _fitting(self, data: bytes) -> bytes:
        """How much of ``data`` goes into the file as it is: whole lines if possible; nothing when the file must make room."""
        if self._file < 0:
            return data
        room = self.most - self._size
        if len(data) <= room:
            return data
        end = data.rfind(b"\n", 0, max(room, 0)) + 1
        if end or self._size > 0:
            return data[:end]
        return data[:room]

    def _append(self, data: bytes) -> bool:
        rest = memoryview(data)
        try:
            while rest and self._file >= 0:
                done = os.write(self._file, rest)
                self._size += done
                rest = rest[done:]
        except OSError as error:
            self.reason = os.strerror(error.errno or errno.EIO)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                self._close()
        self._whole = data[: len(data) - len(rest)].endswith(b"\n") if len(rest) < len(data) else self._whole
        if rest:
            self.lost += len(rest) - len(data)  # the caller counts all of it
        return not rest

    def _note_lost_bytes(self) -> None:
        lost, self.lost = self.lost, 0
        why = f": {self.reason}" if self.reason else ""
        start = "" if self._whole else "\n"
        if not self._append(f"{start}[llmlaunch: {lost} bytes of output are missing here{why}]\n".encode()):
            self.lost = lost

    def _look(self) -> None:
        """Open a file if none is open, or if the open one was removed or replaced."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY_S
        if self._file >= 0:
            try:
                found = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
                if (found.st_dev, found.st_ino) == self._identity:
                    self._size = found.st_size  # others may append to it, too
                    return
            except OSError:
                pass
            self._close()
        self._open()

    def _open(self) -> None:
        try:
            self._file = self._open_ours()
            found = os.fstat(self._file)
        except OSError as error:
            self._close()
            self.reason = os.strerror(error.errno or errno.EIO)
            return
        self._size, self._identity = found.st_size, (found.st_dev, found.st_ino)
        self.opened(self._file)

    def _open_ours(self) -> int:
        for _ in range(2):
            try:
                found = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
            except FileNotFoundError:
                break
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                return os.open(self.name, FLAGS, dir_fd=self.folder)
            os.rename(self.name, f"{self.name}.bad", src_dir_fd=self.folder, dst_dir_fd=self.folder)
        descriptor = os.open(self.name, FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self.folder)
        os.fchmod(descriptor, 0o600)  # whatever the umask says
        return descriptor

    def _rotate(self) -> None:
        try:
            numbers = part_numbers(os.listdir(self.folder), self.name)  # noqa: PTH208
            newest = (numbers[-1] if numbers else 0) + 1
            os.rename(self.name, f"{self.name}.{newest}", src_dir_fd=self.folder, dst_dir_fd=self.folder)
            numbers.append(newest)
            for number in numbers[: max(len(numbers) - self.keep + 1, 0)]:
                os.unlink(f"{self.name}.{number}", dir_fd=self.folder)
        except OSError:
            # The size stays bounded all the same.
            try:
                os.ftruncate(self._file, 0)
                self._size = 0
                return
            except OSError:
                pass
        self._close()
        self._open()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def part_numbers(names: list[str], name: str) -> list[int]:
    """The numbers of the files that ``name`` has become, oldest first."""
    start = len(name) + 1
    found = [n[start:] for n in names if n.startswith(f"{name}.")]
    return sorted(int(number) for number in found if number.isascii() and number.isdigit())


class ByteCounters:
    """Two counters in memory that the shim and its log's writer share. Both count bytes."""

    def __init__(self, memory: memoryview) -> None:
        self._words = memory.cast("B").cast("Q")

    @property
    def taken(self) -> int:
        """Read from the pipe by the writer."""
        return self._words[0]

    @taken.setter
    def taken(self, value: int) -> None:
        self._words[0] = value

    @property
    def dropped(self) -> int:
        """Read from the pipe and dropped by the shim, while the writer was stuck."""
        return self._words[1]

    @dropped.setter
    def dropped(self, value: int) -> None:
        self._words[1] = value


COUNTERS_BYTES = struct.calcsize("QQ")


def copy(source: int, stop: int, writer: LogWriter, counters: ByteCounters, room: int) -> None:
    """Write what comes through the pipe ``source``, which holds ``room`` bytes, until the pipe ``stop`` has something to read.

    A byte means that nobody writes any more; end of file that the shim is dead, and the program with it.
    """
    os.set_blocking(source, False)
    poll = select.poll()
    poll.register(source, select.POLLIN)
    poll.register(stop, select.POLLIN)
    seen = counters.dropped
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        data = _read(source)
        if (dropped := counters.dropped) != seen:
            writer.count_lost(dropped - seen, "the disk was too slow")
            seen = dropped
        if data:
            counters.taken += len(data)
            writer.write(data)
            if len(data) * SMALL < room and stop not in ready:
                time.sleep(PAUSE_S)
        elif stop in ready:
            if os.read(stop, 1) == b"":
                _last_words(source, writer)
            writer.write(b"")  # notes what is missing at the end
            return
        elif data == b"":
            poll.unregister(source)


def _last_words(source: int, writer: LogWriter) -> None:
    end = time.monotonic() + LAST_WORDS_S
    while (data := _read(source)) != b"" and time.monotonic() < end:
        if data:
            writer.write(data)
        else:
            time.sleep(PAUSE_S)


def _read(source: int) -> bytes | None:
    """None when there is nothing now, empty at the end."""
    try:
        return os.read(source, READ_BYTES)
    except BlockingIOError:
        return None
