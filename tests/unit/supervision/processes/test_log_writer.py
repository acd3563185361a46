"""Logs in bounded space: what is written, what is kept, and what a reader sees of it meanwhile."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlaunch.supervision.logs.component_logs import last_rows
from llmlaunch.supervision.logs.log_stream import LogStream
from llmlaunch.supervision.processes import log_writer
from llmlaunch.supervision.processes.log_writer import COUNTERS_BYTES, ByteCounters, LogWriter, copy
from tests.support.waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(autouse=True)
def looks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "LOOK_EVERY_S", 0.0)


def stream_of(path: Path) -> bytes:
    stream = LogStream(path)
    found = b"".join(iter(stream.read, b""))
    stream.close()
    return found


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def test_a_log_is_as_many_files_of_its_size_as_are_kept(tmp_path: Path, folder: int) -> None:
    writer = LogWriter(folder, "log", 100, 3)
    lines = [b"line %d\n" % number for number in range(200)]
    for line in lines:
        writer.write(line)
    files = sorted(tmp_path.iterdir(), key=lambda p: int(p.suffix[1:]) if p.suffix else 1 << 30)
    assert len(files) == 3
    assert all(file.stat().st_size <= 100 for file in files)
    assert all(file.read_bytes().endswith(b"\n") for file in files), "files end with whole lines"
    kept = stream_of(tmp_path / "log")
    assert b"".join(lines).endswith(kept)
    assert len(kept) > 200, "nothing is lost but what is beyond the bound"
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)


@given(st.lists(st.binary(max_size=300), max_size=30), st.integers(1, 100), st.integers(1, 4))
def test_bounds_hold_and_the_end_is_kept_whatever_is_written(
    pieces: list[bytes], most: int, keep: int
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        descriptor = os.open(name, os.O_RDONLY)
        writer = LogWriter(descriptor, "log", most, keep)
        for piece in pieces:
            writer.write(piece)
        os.close(descriptor)
        files = list(Path(name).iterdir())
        assert len(files) <= keep
        assert all(file.stat().st_size <= most for file in files)
        assert b"".join(pieces).endswith(stream_of(Path(name, "log")))


def test_a_second_writer_goes_on_where_the_first_one_died(tmp_path: Path, folder: int) -> None:
    for number in range(30):
        LogWriter(folder, "log", 40, 5).write(b"of writer %02d\n" % number)
    assert stream_of(tmp_path / "log").endswith(b"of writer 27\nof writer 28\nof writer 29\n")
    assert len(names(tmp_path)) == 5


@pytest.mark.parametrize("make", [
    lambda path: path.mkdir(),
    lambda path: os.mkfifo(path),
    lambda path: path.symlink_to("/dev/null"),
    lambda path: path.symlink_to(path.with_name("target")),
], ids=["folder", "pipe", "link", "dangling link"])  # fmt: skip
def test_what_lies_in_its_place_is_set_aside(
    tmp_path: Path, folder: int, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "log")
    LogWriter(folder, "log", 100, 3).write(b"a line\n")
    assert (tmp_path / "log").read_bytes() == b"a line\n"
    assert names(tmp_path) == ["log", "log.bad"]


def test_a_log_that_somebody_removes_or_replaces_is_begun_again(tmp_path: Path, folder: int) -> None:
    writer = LogWriter(folder, "log", 100, 3)
    writer.write(b"one\n")
    (tmp_path / "log").unlink()
    writer.write(b"two\n")
    assert (tmp_path / "log").read_bytes() == b"two\n"
    (tmp_path / "log").rename(tmp_path / "log.1")
    writer.write(b"three\n")
    assert stream_of(tmp_path / "log") == b"two\nthree\n"


def test_a_full_disk_costs_lines_and_the_log_says_so(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LogWriter(folder, "log", 1000, 3)
    writer.write(b"before\n")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        writer.write(b"x" * 70)
        writer.write(b"y" * 7)
    writer.write(b"after\n")
    assert (tmp_path / "log").read_text() == (
        "before\n[llmlaunch: 77 bytes of output are missing here: No space left on device]\nafter\n"
    )


def test_no_folder_is_no_fault() -> None:
    writer = LogWriter(-1, "log", 100, 3)
    writer.write(b"nowhere\n")
    assert writer.lost == 8


def test_a_reader_loses_nothing_while_the_files_change(tmp_path: Path, folder: int) -> None:
    writer = LogWriter(folder, "log", 500, 100)
    stream = LogStream(tmp_path / "log")
    chance = random.Random(7)
    written, seen = b"", b""
    for number in range(2000):
        line = b"%d %s\n" % (number, b"x" * chance.randrange(40))
        writer.write(line)
        written += line
        if chance.random() < 0.2:
            seen += stream.read(chance.randrange(1, 3000))
    seen += b"".join(iter(stream.read, b""))
    stream.close()
    assert seen == written


def test_a_reader_that_is_too_slow_goes_on_with_what_there_is(tmp_path: Path, folder: int) -> None:
    writer = LogWriter(folder, "log", 100, 2)
    stream = LogStream(tmp_path / "log")
    writer.write(b"first\n")
    assert stream.read() == b"first\n"
    for number in range(100):
        writer.write(b"line %d\n" % number)
    seen = b"".join(iter(stream.read, b""))
    assert seen.endswith(b"line 98\nline 99\n")
    (tmp_path / "log").write_bytes(b"")
    assert stream.read() == b""
    writer.write(b"after somebody emptied it\n")
    assert stream.read() == b"after somebody emptied it\n"
    stream.close()


@pytest.mark.parametrize("ending", [b"", b"\n"])
@pytest.mark.parametrize("most", [7, 50, 100_000])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 99, 100, 1000])
def test_the_last_lines_are_found_from_the_end(
    tmp_path: Path, folder: int, count: int, most: int, ending: bytes
) -> None:
    text = b"\n".join(b"line %d" % number for number in range(100)) + ending
    LogWriter(folder, "log", most, 1000).write(text)
    stream = LogStream(tmp_path / "log")
    stream.skip_to_last_lines(count)
    assert b"".join(iter(stream.read, b"")) == b"".join(text.splitlines(True)[max(100 - count, 0) :])
    stream.close()


def test_a_tail_crosses_files(tmp_path: Path, folder: int) -> None:
    writer = LogWriter(folder, "log", 30, 3)
    for number in range(20):
        writer.write(b"line %d\n" % number)
    writer.write(b"\x1b]52;c;x\x07\n")
    assert last_rows(tmp_path / "log")[-4:] == ["line 17", "line 18", "line 19", "\x1b]52;c;x\x07"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_no_tail_of_what_is_no_log(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "log")
    assert last_rows(tmp_path / "log") == []


class Copier:
    """:func:`copy` in a thread."""

    def __init__(self, tmp_path: Path, folder: int) -> None:
        self.source, self.sink = os.pipe()
        told, self.tell = os.pipe()
        self.counters = ByteCounters(memoryview(bytearray(COUNTERS_BYTES)))
        writer = LogWriter(folder, "log", 1 << 20, 3)
        self._thread = threading.Thread(
            target=copy, args=(self.source, told, writer, self.counters, 65536), daemon=True
        )
        self._thread.start()

    def ended(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_what_is_in_the_pipe_is_written_before_the_end(tmp_path: Path, folder: int) -> None:
    copier = Copier(tmp_path, folder)
    os.write(copier.sink, b"last words\n")
    os.write(copier.tell, b".")
    copier.ended()
    assert (tmp_path / "log").read_bytes() == b"last words\n"
    assert copier.counters.taken == 11


def test_the_writer_outlives_its_keeper_until_the_program_is_gone(tmp_path: Path, folder: int) -> None:
    copier = Copier(tmp_path, folder)
    os.close(copier.tell)
    os.write(copier.sink, b"the program dies a little later\n")
    os.close(copier.sink)
    copier.ended()
    assert (tmp_path / "log").read_bytes() == b"the program dies a little later\n"


def test_what_the_keeper_dropped_is_told(tmp_path: Path, folder: int) -> None:
    copier = Copier(tmp_path, folder)
    copier.counters.dropped += 5
    os.write(copier.sink, b"again\n")
    wait_until(lambda: copier.counters.taken == 6, 5, "the line is taken")
    os.write(copier.tell, b".")
    copier.ended()
    text = (tmp_path / "log").read_text()
    assert text == "[llmlaunch: 5 bytes of output are missing here: the disk was too slow]\nagain\n"
