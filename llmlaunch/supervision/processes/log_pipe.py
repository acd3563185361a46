"""The pipe for a program's output, and the process that writes it to the log, so that its size stays bounded.

The program writes into a pipe, and a child of the shim copies from there into files. Written to directly, a file can
be bounded only by punching holes into it, which keeps no earlier files and not every file system can, and a full disk
would be the program's own trouble: many die of a line that they cannot print. At 50 MB/s the writer takes 8 % of a
CPU, most of it in the file system, where the program would spend it otherwise. A process of its own, because neither
a shim that is stopped nor a disk that hangs may hold up the program: the shim looks once a second, and while the
writer does not read, it empties the pipe.

Run within the shim, so standard library alone.
"""

import ctypes
import fcntl
import mmap
import os
import signal
import struct
import termios
import time

from log_writer import COUNTERS_BYTES, ByteCounters, LogWriter, copy  # type: ignore[import-not-found]

PIPE_BYTES = 1 << 20
WATCH_S = 1.0  # how often the log's writer is checked
FINISH_S = 2.0  # how long the writer may take for what is left in the pipe


class LogPipe:
    """A pipe for the program's output, and the process that writes it to the log."""

    def __init__(self, folder: int, name: str, most: int, keep: int) -> None:
        self.folder, self.name, self.most, self.keep = folder, name, most, keep
        self.source, self.sink = os.pipe2(os.O_CLOEXEC)
        self.room = self.widen()
        os.set_blocking(self.source, False)
        self.counters = ByteCounters(memoryview(mmap.mmap(-1, COUNTERS_BYTES)))
        self.seen = 0
        self.stuck = False
        self.finishing_since: float | None = None
        self.watched_at = self.started_at = 0.0
        self.writer, self.stop = 0, -1
        self.start_writer()

    def widen(self) -> int:
        """Enlarge the pipe if allowed; its size in bytes."""
        try:
            return fcntl.fcntl(self.sink, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:  # this user has many large pipes already
            return fcntl.fcntl(self.sink, fcntl.F_GETPIPE_SZ)

    def start_writer(self) -> None:
        """Start the writer, the first one or another. If that fails, the pipe is emptied all the same."""
        self.started_at = time.monotonic()
        if self.stop >= 0:
            os.close(self.stop)
        stopped, self.stop = os.pipe2(os.O_CLOEXEC)
        try:
            self.writer = os.fork()
        except OSError:
            os.close(stopped)
            return
        if self.writer == 0:
            try:
                self.run_writer(stopped)
            finally:
                os._exit(0)
        os.close(stopped)

    def run_writer(self, stopped: int) -> None:
        """Run the writer, in the process that was forked for it."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
            if int(name) not in (self.source, stopped, self.folder):
                try:
                    os.close(int(name))
                except OSError:
                    pass  # the one of listdir itself
        for _ in range(3):
            os.open(os.devnull, os.O_RDWR)
        disguise(f"llmlaunch: writes {self.name}")
        copy(
            self.source,
            stopped,
            LogWriter(self.folder, self.name, self.most, self.keep),
            self.counters,
            self.room,
        )

    def watch(self) -> None:
        """Start the writer again if it has ended; empty the pipe while the writer does not read."""
        now = time.monotonic()
        if not self.stuck and now - self.watched_at < WATCH_S:
            return
        self.watched_at = now
        if self.writer == 0 and now - self.started_at > WATCH_S:
            self.start_writer()
        taken = self.counters.taken
        waiting = struct.unpack("i", fcntl.ioctl(self.source, termios.FIONREAD, bytes(4)))[0]
        moved, self.seen = taken != self.seen, taken
        # A pipe is full when its pages are, and lines of half a page leave half of it empty.
        self.stuck = not moved and (self.stuck or waiting * 4 > self.room)
        if self.stuck and waiting:
            try:
                self.counters.dropped += len(os.read(self.source, self.room))
            except BlockingIOError:
                pass

    def finish(self) -> None:
        """Tell the writer that no more output comes, and kill it if it does not finish in time."""
        now = time.monotonic()
        if self.finishing_since is None:
            self.finishing_since = now
            if self.writer == 0:
                self.start_writer()
            try:
                os.write(self.stop, b".")
            except OSError:
                pass  # it has ended already
        elif self.writer and now - self.finishing_since > FINISH_S:
            os.kill(self.writer, signal.SIGKILL)

    @property
    def writer_is_stuck(self) -> bool:
        """Whether not even SIGKILL ends the writer: its disk hangs."""
        return self.finishing_since is not None and time.monotonic() - self.finishing_since > 2 * FINISH_S


def disguise(title: str) -> None:
    """Show ``title`` in the list of processes, and no environment.

    A search for the program's processes by their environment must not find the writer, which may outlive them.
    """
    with open("/proc/self/stat", "rb") as stat:  # noqa: PTH123
        start, end, env_start, env_end = map(int, stat.read().rpartition(b")")[2].split()[45:49])
    if 0 < start < end <= env_start < env_end:
        ctypes.memset(env_start, 0, env_end - env_start)
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, title.encode()[: end - start - 1], min(len(title.encode()), end - start - 1))
